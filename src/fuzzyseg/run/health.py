"""Training diagnostics: findings from the logged numbers, each with a remedy."""

import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fuzzyseg.run.logs import SCORE

Line = Mapping[str, Any]

RECENT = 20
"""Number of logged lines over which averages are computed."""

LIMITS = {
    "one_class": 1.05,  # classes among the pseudo labels (exponential of their entropy): fewer is a collapse ...
    "learnt": 0.01,  # ... unless a second class of the validation masks has at least this IoU
    "single_sets": 0.99,  # fraction of pixels with K = 1 at which FPL amounts to cross entropy
    "no_signal": 1e-3,  # unsupervised loss, as a fraction of the supervised one, below which it has no effect
    "ramp": 0.2,  # initial fraction of steps in which it may be zero, as weights ramp up and few pixels are confident
    "behind": 0.02,  # mIoU below the supervised start or baseline
    "settled": 0.25,  # fraction of steps after which a run is compared with these two
    "unseen": 1e-3,  # IoU of a class that is never predicted, after half of the steps
    "unseen_many": 0.25,  # fraction of such classes above which it is a warning, not a note
    "rising": 2.0,  # ratio of the supervised loss to its lowest median so far, if the loss is also above ...
    "low_loss": 0.1,  # ... this
    "skipped": 0.05,  # fraction of steps skipped because of fp16 overflow
    "fallen": 0.03,  # mIoU below the best evaluation, two or more evaluations ago ...
    "fitted": 0.7,  # ... while the supervised loss fell to this fraction of its value then
}
"""Thresholds of all rules."""


Rule = tuple[str, str, str]
"""Kind, level and text of a finding."""

_LESS = (
    "a smaller weight of the unsupervised loss, a higher T or confidence threshold, a lower optim.lr; and a second "
    "seed, since a single run may be chance"
)

ADVICE = {
    "collapse": "start from supervised weights (--init), a lower optim.lr, data.balance, or more labelled images of "
    "the other classes",
    "single_sets": "a higher loss.threshold (0.9 or 0.95), or loss.threshold=calibrated",
    "no_signal": "a lower confidence threshold of the method, a larger weight of the unsupervised loss, or --loss "
    "fuzzy, which uses every pixel; if it was zero from the first step, check the unlabelled images",
    "too_hot": "a third of optim.lr, optim.warmup=200, optim.clip=1, or train.precision=bf16 or fp32",
    "behind_start": _LESS,
    "behind_baseline": _LESS,
    "unseen": "labelled images that contain them (`fuzzyseg check` counts these), supervised.class_weights, "
    "data.balance, or more steps",
    "overfitting": "fewer steps, stronger augmentation (augment.scale, augment.jitter), a larger optim.weight_decay, "
    "train.ema=0.99, or more labelled images",
}
"""Remedy for each kind of finding."""


@dataclass(frozen=True)
class Finding:
    """A finding at a step, with a remedy. level: warning or note."""

    kind: str
    level: str
    text: str
    advice: str
    step: int = 0


@dataclass(frozen=True)
class Review:
    """Diagnostic rules for a training run.

    steps: number of training steps. loss: name of the pseudo-label loss. start: mIoU of the supervised run whose
    weights were used for initialisation. baseline: mIoU of a supervised run by step. Unknown values may be omitted.
    """

    steps: int
    loss: str = ""
    start: float | None = None
    baseline: Mapping[int, float] = field(default_factory=dict)

    def __call__(self, lines: Sequence[Line]) -> list[dict[str, Any]]:
        """Return the new findings at the last logged line; findings already recorded in the lines are not repeated."""
        reported = {finding["kind"] for line in lines for finding in line.get("health", ())}
        return [asdict(finding) for finding in self.findings(lines) if finding.kind not in reported]

    def findings(self, lines: Sequence[Line]) -> Iterator[Finding]:
        """Yield all findings at the last line."""
        if not lines:
            return
        step, recent = lines[-1]["step"], lines[-RECENT:]
        scored = [line for line in lines if SCORE in (line.get("evaluation") or {})]
        rules = [self._scores(scored, step), self._overfitting(lines, scored)]
        if len(recent) == RECENT:
            rules += [self._labels(recent, scored), self._signal(lines, recent, step)]
        for rule in rules:
            yield from (Finding(*finding, ADVICE[finding[0]], step) for finding in rule)

    def _labels(self, recent: Sequence[Line], scored: Sequence[Line]) -> Iterator[Rule]:
        shares, sizes = _mean_list(recent, "label_histogram"), _mean_list(recent, "k_histogram")
        if len(shares) > 1 and math.exp(-sum(p * math.log(p) for p in shares if p > 0)) < LIMITS["one_class"]:
            ious = (scored[-1]["evaluation"].get("per_class") or {}).values() if scored else ()
            learnt = sorted((iou for iou in ious if iou is not None), reverse=True)
            if len(learnt) < 2 or learnt[1] < LIMITS["learnt"]:
                share = f"{100 * max(shares):.1f} % of the pseudo labels are of one class"
                yield "collapse", "warning", f"{share}: the pseudo labels have collapsed."
        if self.loss == "fuzzy" and len(sizes) > 1 and sizes[0] >= LIMITS["single_sets"]:
            share = f"{100 * sizes[0]:.1f} % of the pixels have K = 1, one class in their fuzzy set"
            yield "single_sets", "warning", f"{share}: there, FPL equals weighted cross entropy."

    def _signal(self, lines: Sequence[Line], recent: Sequence[Line], step: int) -> Iterator[Rule]:
        taught, labelled = _losses(recent, "unsupervised"), _losses(recent, "supervised")
        complete = len(labelled) == len(taught) == RECENT and step >= LIMITS["ramp"] * self.steps
        if complete and statistics.mean(taught) < LIMITS["no_signal"] * statistics.mean(labelled):
            yield "no_signal", "warning", "the unsupervised loss is zero: unlabelled images have no effect."
        blocks = [_losses(lines[end - RECENT : end], "supervised") for end in range(len(lines), RECENT - 1, -RECENT)]
        medians = [statistics.median(block) for block in blocks if len(block) >= RECENT // 2]
        sign = ""
        if len(medians) > 1 and medians[0] > max(LIMITS["rising"] * min(medians[1:]), LIMITS["low_loss"]):
            sign = f"the supervised loss has risen from {min(medians[1:]):.3g} to {medians[0]:.3g}"
        elif not all(_known(line.get("loss", 0.0)) for line in recent):
            sign = "the loss was not finite"
        elif (skipped := recent[-1].get("skipped_steps") or 0) > LIMITS["skipped"] * step:
            sign = f"{skipped} steps overflowed in fp16"
        if sign:
            yield "too_hot", "warning", f"{sign}: the learning rate may be too high."

    def _scores(self, scored: Sequence[Line], step: int) -> Iterator[Rule]:
        if not scored or scored[-1]["step"] != step:
            return
        evaluation = scored[-1]["evaluation"]
        others = {"start": self.start, "baseline at this step": self.baseline.get(step)}
        for name, before in others.items() if step >= LIMITS["settled"] * self.steps else ():
            if before is not None and evaluation[SCORE] < before - LIMITS["behind"]:
                scores = (
                    f"mIoU {100 * evaluation[SCORE]:.1f} % is below that of the supervised {name}, {100 * before:.1f} %"
                )
                yield f"behind_{name.split()[0]}", "warning", f"{scores}: unlabelled images lower the score so far."
        known = evaluation.get("ceiling") or {}
        each = {k: v for k, v in (evaluation.get("per_class") or {}).items() if known.get(k, 0) is not None}
        unseen = [name for name, iou in each.items() if iou is not None and iou <= LIMITS["unseen"]]
        if unseen and step >= self.steps / 2:
            more = f" and {len(unseen) - 5} more" if len(unseen) > 5 else ""
            level = "warning" if len(unseen) > LIMITS["unseen_many"] * len(each) else "note"
            names = f"{', '.join(unseen[:5])}{more} ({len(unseen)} of {len(each)} classes)"
            yield "unseen", level, f"never predicted correctly: {names}."

    def _overfitting(self, lines: Sequence[Line], scored: Sequence[Line]) -> Iterator[Rule]:
        if len(scored) < 3 or scored[-1] is not lines[-1]:
            return
        best = max(scored[:-2], key=lambda line: line["evaluation"][SCORE])
        last, then = scored[-1]["evaluation"][SCORE], best["evaluation"][SCORE]
        place = lines.index(best) + 1
        before, now = (_losses(part, "supervised") for part in (lines[max(0, place - RECENT) : place], lines[-RECENT:]))
        fitted = before and now and statistics.median(now) < LIMITS["fitted"] * statistics.median(before)
        if fitted and last < then - LIMITS["fallen"]:
            fall = f"mIoU has fallen from {100 * then:.1f} % at step {best['step']} to {100 * last:.1f} %"
            while_ = "while the loss of the labelled images still falls: the network overfits to them"
            yield "overfitting", "warning", f"{fall}, {while_}."


def review_of(settings: Mapping[str, Any], baseline: Mapping[int, float] | None = None) -> Review:
    """Return the rules for a run with these settings (dotted names). baseline: supervised mIoU by step."""
    single = settings.get("loss.k_cap") == 1 or settings.get("loss.rule") == 1  # K = 1 on purpose
    loss = "" if single else str(settings.get("loss.name"))
    return Review(int(settings["train.steps"]), loss, start_score(settings.get("init")), baseline or {})


def findings_of(lines: Sequence[Line], review: Review) -> list[Finding]:
    """Return the findings recorded in the lines and those of the rules: the latest of each kind, warnings first."""
    latest = {finding["kind"]: Finding(**finding) for line in lines for finding in line.get("health", ())}
    for place, line in enumerate(lines, start=1):
        if "evaluation" in line or place == len(lines):
            latest |= {finding.kind: finding for finding in review.findings(lines[:place])}
    return sorted(latest.values(), key=lambda finding: (finding.level == "note", finding.step))


def start_score(init: Sequence[str] | str | None) -> float | None:
    """Return the last mIoU of the run that provides the initial weights; None if it is not available."""
    first = [init] if isinstance(init, str) else list(init or ())
    for folder in (Path(first[0]), Path(first[0]).parent) if first else ():
        try:
            result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
            return float(result["last"][SCORE])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue
    return None


def _losses(lines: Sequence[Line], term: str) -> list[float]:
    """Return the finite values of a loss."""
    values = ((line.get("losses") or {}).get(term) for line in lines)
    return [value for value in values if value is not None and _known(value)]


def _known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)  # lines in memory contain NaN where the file has null


def _mean_list(lines: Sequence[Line], name: str) -> list[float]:
    """Return the element-wise mean of a list-valued metric over the lines; empty if a line lacks it."""
    rows = [(line.get("metrics") or {}).get(name) for line in lines]
    if any(not row or not all(map(_known, row)) for row in rows):
        return []
    return [statistics.mean(column) for column in zip(*rows, strict=True)]
