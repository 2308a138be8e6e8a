"""Where the threshold T of a run comes from: a number, the paper's rule, a policy, or images that are held back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from math import sqrt
from typing import Any, Literal

import torch

from fuzzyseg.analysis import coverage_by_threshold, smallest_covering
from fuzzyseg.config import Config, ConfigError
from fuzzyseg.data.held_back import hold_back
from fuzzyseg.experiment.learning import choose_method, uses_threshold
from fuzzyseg.experiment.material import Material
from fuzzyseg.experiment.scoring import Scoring
from fuzzyseg.inference import Predictor
from fuzzyseg.losses import Adaptive, Calibrated, PixelLossModule, Policy, Schedule
from fuzzyseg.methods import Facts, Method
from fuzzyseg.ops import collective

CITYSCAPES = 2975
"""Training images of the data set on which Table 5 was measured."""

UNKNOWN = 0.9
"""T until the first calibration: the paper's usual value."""

Batches = Callable[[int, int], Iterator[Any]]


def auto_threshold(labelled: int, images: int, by: Literal["share", "count"]) -> float:
    """The paper's rule, "the fewer labels, the higher T", by its Table 5 (Cityscapes): .95 at 1/32, .9 at 1/16 and 1/8.

    Between two rows the geometric mean of the shares is the border; from that of 1/8 and 1/4 on T is .85, the smallest
    that the paper uses, which continues the table. by count: the same borders as numbers of labelled images, 131 and
    525, for on a data set of another size the share and the count disagree.
    """
    amount = labelled / max(images, 1) if by == "share" else labelled / CITYSCAPES
    if amount < sqrt(1 / 32 * 1 / 16):
        return 0.95
    return 0.9 if amount < sqrt(1 / 8 * 1 / 4) else 0.85


def threshold_of(config: Config, facts: Facts) -> float | Policy:
    """T, or what sets it. Raises ConfigError for settings that do not fit each other."""
    loss = config.loss
    if isinstance(loss.threshold, float):
        return loss.threshold
    if loss.threshold == "auto":
        return auto_threshold(facts.images.get("labelled", 0), facts.images.get("all", 0), loss.auto)
    if isinstance(loss.rule, int):
        raise ConfigError(
            f"loss.threshold: found {loss.threshold!r} with loss.rule={loss.rule}; a fixed K does not look at T"
        )
    policy: Policy
    if loss.threshold == "schedule":
        policy = Schedule(**loss.schedule.model_dump())
    elif loss.threshold == "adaptive":
        policy = Adaptive(**loss.adaptive.model_dump())
    else:
        policy = Calibrated(UNKNOWN)
    try:
        policy.check()
    except ValueError as error:
        raise ConfigError(f"loss.{loss.threshold}.{error}") from None
    return policy


def say_threshold(config: Config, facts: Facts) -> list[str]:
    """Sentences on where T comes from; none for a number, and where the loss does not use it."""
    loss = config.loss
    if not uses_threshold(config, choose_method(config)[0]):
        return []
    if loss.threshold == "auto":
        labelled, images = facts.images.get("labelled", 0), facts.images.get("all", 0)
        value = {by: auto_threshold(labelled, images, by) for by in ("share", "count")}  # type: ignore[arg-type]
        amount = {"share": f"{labelled} of {images} training images", "count": f"{labelled} images"}
        other = "count" if loss.auto == "share" else "share"
        return [
            f"threshold auto: T = {value[loss.auto]}, by the {loss.auto} of labels ({amount[loss.auto]}); "
            f"by the {other} it would be {value[other]}"
        ]
    if loss.threshold == "schedule":
        plan = loss.schedule
        return [f"threshold schedule: T from {plan.start} to {plan.end} over {100 * plan.share:g} % of the run"]
    if loss.threshold == "adaptive":
        shown = ", ".join(f"{value:g}" for value in loss.adaptive.candidates)
        return [f"threshold adaptive: T of each pixel from {shown} by a window of {loss.adaptive.window} cells"]
    if loss.threshold == "calibrated":
        wanted = 100 * loss.calibrated.coverage
        return [f"threshold calibrated: T {UNKNOWN}, then the least that covers {wanted:g} % of the truth held back"]
    return []


def threshold_record(config: Config, method: Method) -> dict[str, Any] | None:
    """What is stored with the run: the policy, its settings, and the value that it gave or stands at.

    None where the loss does not use T.
    """
    loss = config.loss
    if not uses_threshold(config, type(method)) or not isinstance(method.pixel_loss, PixelLossModule):
        return None
    name = loss.threshold if isinstance(loss.threshold, str) else "number"
    settings: dict[str, Any] = {}
    if name == "auto":
        settings = {"by": loss.auto}
    elif name != "number":
        settings = getattr(loss, name).model_dump(mode="json")
    if name == "adaptive":
        return {"policy": name, **settings}
    # fp32 as it is written: 0.95, not 0.949999988
    return {"policy": name, **settings, "value": float(f"{float(method.pixel_loss.threshold):.6g}")}


def calibrates(config: Config) -> bool:
    """Whether T is chosen on images that are held back."""
    return config.loss.threshold == "calibrated" and uses_threshold(config, choose_method(config)[0])


def with_held_back(config: Config, material: Material) -> Material:
    """The material, without the labelled images that T is calibrated on if it is. Raises ConfigError."""
    if not calibrates(config):
        return material
    labelled = len(material.split.labelled)
    count = max(1, round(config.loss.calibrated.hold_back * labelled))
    if count >= labelled:
        raise ConfigError(
            f"loss.threshold: found 'calibrated' with {labelled} labelled image(s), {count} of them to be held back; "
            "label more, lower loss.calibrated.hold_back, or choose another threshold"
        )
    split, held = hold_back(material.split, material.dataset, count)
    return replace(material, split=split, held_back=held)


def calibrated_batches(
    config: Config, source: Batches, scoring: Scoring, method: Method, say: Callable[[str], None]
) -> Batches:
    """The batches of the run; T is set in between if it is calibrated. Raises ConfigError."""
    return Calibration(config, scoring, method, say).batches(source) if calibrates(config) else source


class Calibration:
    """Sets T so that the fuzzy sets hold the wanted share of the truth on the images that were held back.

    It happens between two steps, before the batch of a step that `every` divides (the first one only where the weights
    come from `init`), with the network that the method would be evaluated by: a function of the step and the weights,
    so that a resumed run goes on bit for bit. Several processes measure alike and take the mean of what they measured.
    """

    def __init__(self, config: Config, scoring: Scoring, method: Method, say: Callable[[str], None]) -> None:
        settings, steps = config.loss.calibrated, config.train.steps
        self.every = max(1, steps // 10) if settings.every is None else settings.every
        self.at_start = bool(config.init)
        if not self.every and not self.at_start:
            raise ConfigError(
                "loss.calibrated.every: found 0, once at the start, but the network starts untrained; give --init, or "
                "a number of steps"
            )
        if not settings.low < settings.high:
            raise ConfigError(
                f"loss.calibrated: found low {settings.low} and high {settings.high}; expected low < high"
            )
        self.settings, self.loss = settings, config.loss
        count = max(2, 1 + round((settings.high - settings.low) / 0.005))
        self.thresholds: list[float] = torch.linspace(settings.low, settings.high, count, dtype=torch.float64).tolist()
        self.scoring, self.method, self.say = scoring, method, say

    def due(self, step: int) -> bool:
        """Whether T is measured before the batch of this step."""
        return self.at_start if step == 0 else self.every > 0 and step % self.every == 0

    def batches(self, source: Batches) -> Batches:
        """The same batches; T is set in between."""

        def calibrated(start: int, stop: int) -> Iterator[Any]:
            for step, batch in zip(range(start, stop), source(start, stop), strict=True):
                if self.due(step):
                    self.calibrate(step)
                yield batch

        return calibrated

    def calibrate(self, step: int) -> None:
        """Measures and sets T. It stays as it is where the images hold no class."""
        assert isinstance(self.method.pixel_loss, PixelLossModule)
        device = self.method.pixel_loss.threshold.device
        predictor = Predictor(self.method.predictor(), self.scoring.card(step), device)
        counts = torch.zeros(1 + len(self.thresholds), dtype=torch.float64)
        for item in self.scoring.material.held_back:
            for logits, mask in self.scoring.training_pairs(predictor, item):
                covered, pixels = coverage_by_threshold(
                    logits,
                    mask.to(device),
                    self.thresholds,
                    k_cap=self.loss.k_cap,
                    rule=self.loss.rule,
                    variant=self.loss.variant,
                )
                counts += torch.cat([covered, pixels.unsqueeze(0)]).cpu()
        counts = collective.mean(counts.to(device, torch.float32)).cpu()
        if not counts[-1] > 0:
            return
        found, share = smallest_covering(counts[:-1], counts[-1], self.thresholds, self.settings.coverage)
        self.method.pixel_loss.threshold.fill_(found)
        self.say(f"step {step}: T = {found:.3f} covers {100 * share:.1f} % of the truth that was held back")
