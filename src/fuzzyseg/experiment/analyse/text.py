"""Sentences and Markdown tables that present the results of `analyse`."""

from collections.abc import Mapping, Sequence
from typing import Any

from fuzzyseg.data.text import markdown as in_markdown
from fuzzyseg.experiment.analyse.regime import verdict
from fuzzyseg.report.drawing import CASE_NAMES

Table = list[list[str]]

USUAL = (0.85, 0.9, 0.95)
"""Thresholds used in the FPL paper."""

MEASURED = 0.9
"""T used in most of the runs that the verdict is based on."""

WANTED = 0.95
"""Fraction of pixels whose set should contain the true class, as in `loss.calibrated.coverage`."""

WEAK = 0.5
"""Top-1 accuracy below which a network's fuzzy sets are not informative."""

LEGEND = (
    "label right: pixels whose pseudo label (the most probable class) is right: accuracy of the hard labels",
    "truth in set: pixels whose fuzzy set contains the true class: coverage of the fuzzy sets",
    "of wrong labels: of the pixels with a wrong pseudo label, the fraction whose set contains the true class",
    "classes: mean size of a set (K); K=1, ...: pixels with sets of that size. Larger sets carry less information",
    "two needed: pixels with p1 <= T < p1 + p2: only two classes together exceed T; the paper's rule keeps one of them",
)
"""Explanation of the columns of `thresholds`."""


def answer(table: Sequence[Mapping[str, Any]], *, classes: int, images: str, rule: str | int = "n-1") -> list[str]:
    """Return sentences about whether FPL helps, according to measured runs, and about the choice of T.

    table: rows of a `ThresholdTable` with the usual thresholds, measured on `images` with `rule`. The suggested T is
    the smallest usual one whose coverage is at least `WANTED`, otherwise the largest: better networks need a smaller T
    (Table 5 of the FPL paper). This is a rule of thumb and does not predict a score.
    """
    if classes == 2:
        return ["FPL does not help: with two classes every fuzzy set has one class, and FPL is weighted cross entropy."]
    if isinstance(rule, int):
        return [f"The rule is a fixed K = {rule}: T has no effect."]
    rows = [row for row in table if row["threshold"] in USUAL]
    enough = [row for row in rows if row["coverage"] >= WANTED]
    row = enough[0] if enough else rows[-1]
    t, several, gain = row["threshold"], 1 - row["k_histogram"][0], row["coverage"] - row["top1"]
    usual = ", ".join(f"{value:g}" for value in USUAL)
    reason = (
        f"the smallest of {usual} whose sets contain the true class at {_share(WANTED)} of the pixels"
        if enough
        else f"none of {usual} reaches a coverage of {_share(WANTED)}; the largest is closest"
    )
    conclusion = verdict(next(row["rescued"] for row in rows if row["threshold"] == MEASURED))
    sentences = [
        f"Does FPL help here (T = {MEASURED:g})? {conclusion.word.capitalize()}: {conclusion.sentence}",
        f"On {images} the pseudo label is right at {_share(row['top1'])} of the pixels. With T = {t:g}, the set "
        f"contains the true class at another {_share(gain)}, and {_share(several)} of the sets have several classes. "
        f"If you train with FPL, start with T = {t:g} ({reason}).",
    ]
    if row["top1"] < WEAK:
        sentences.append(
            "The network is right at less than half of the pixels, so this is not conclusive: first train it on the "
            "labels, then repeat the analysis."
        )
    if row["torn"] > several and rule == "n-1":
        sentences.append(
            f"{_share(row['torn'])} of the pixels have p1 <= T < p1 + p2: two classes together exceed T, and the "
            f"paper's rule keeps one. `loss.rule=continuous` (or `n`) also counts the second one."
        )
    sentences.append(
        "Only training shows whether mIoU improves: `fuzzyseg compare` trains supervised, hard and fuzzy runs. "
        "`loss.threshold=calibrated` selects T on held-out labelled images."
    )
    return sentences


def _share(value: float) -> str:
    return f"{100 * value:.3g} %"


def per_cent(value: float | None, digits: int = 1) -> str:
    """Format a fraction as a percentage; None as a dash."""
    return "-" if value is None else f"{100 * value:.{digits}f} %"


def number(value: float | None, digits: int = 3) -> str:
    """Format a number; None as a dash."""
    return "-" if value is None else f"{value:.{digits}f}"


def thresholds(rows: Sequence[dict[str, Any]]) -> Table:
    """Return a table of fuzzy-set statistics, one row per T."""
    table = [
        ["T", "label right", "truth in set", "of wrong labels", "classes", "K=1", "K=2", "K=3", "K>3", "two needed"]
    ]
    for row in rows:
        k = [*row["k_histogram"], 0.0, 0.0]
        shares = [per_cent(row[name]) for name in ("top1", "coverage", "rescued")]
        sizes = [per_cent(value) for value in (*k[:3], sum(k[3:]), row["torn"])]
        table.append([f"{row['threshold']:g}", *shares, number(row["mean_k"], 2), *sizes])
    return table


def confident(rows: Sequence[dict[str, Any]]) -> Table:
    """Return a table of confident pixels by threshold: their accuracy, and the pixels that `confidence=gate` uses."""
    table = [["confidence", "pixels", "label right", "pixels used with confidence=gate"]]
    for row in rows:
        pixels = "confident pixels" if row["reliable"] else "all pixels"
        table.append([f"{row['confidence']:g}", per_cent(row["share"]), per_cent(row["right"], 2), pixels])
    return table


def cases(group: dict[str, Any]) -> Table:
    """Return a table of frequency, scores and gradients for the three cases and for all pixels."""
    head = ["case", "pixels", "K=1", "R hard", "R fuzzy", "lift hard", "lift fuzzy", "x share, hard", "x share, fuzzy"]
    table = [head]
    for case, row in group["cases"].items():
        pairs = [(name, loss) for name in ("score", "lift", "effect") for loss in ("hard", "fuzzy")]
        values = [number(row[name][loss], 4 if name == "effect" else 3) for name, loss in pairs]
        table.append([CASE_NAMES[int(case)], per_cent(row["share"], 2), per_cent(row["k_histogram"][0]), *values])
    effect = [number(group["effect"][loss], 4) for loss in ("hard", "fuzzy")]
    return [*table, ["all", per_cent(1.0, 0), per_cent(group["k_histogram"][0]), "", "", "", "", *effect]]


def sizes(group: dict[str, Any]) -> Table:
    """Return a table of statistics by K."""
    table = [["K", "pixels", "truth in set", "label right", "entropy / log C", "weight"]]
    for row in group["by_k"]:
        shares = [per_cent(row[name], 2) for name in ("share", "coverage", "top1")]
        table.append([str(row["k"]), *shares, number(row["entropy"]), number(row["weight"])])
    return table


def confusions(group: dict[str, Any], limit: int = 12) -> Table:
    """Return a table of frequent confusions, with the fraction of their pixels whose set contains the true class."""
    rows = group["confusions"][:limit]
    table = [[row["truth"], row["label"], per_cent(row["share"], 2), per_cent(row["rescued"])] for row in rows]
    return [["truth", "mistaken for", "pixels", "truth in set"], *table]


def markdown(table: Table) -> list[str]:
    """Return the table as lines of Markdown, followed by an empty line."""
    rows = ["| " + " | ".join(map(in_markdown, row)) + " |" for row in table]
    return [rows[0], "|---" + "|---:" * (len(table[0]) - 1) + "|", *rows[1:], ""]


def about(result: dict[str, Any]) -> list[str]:
    """Describe source, images, networks, settings of the fuzzy sets, and notes."""
    images = ", ".join(f"{group['images']} {name}" for name, group in result["groups"].items())
    return [
        f"source: {result['source']}; images: {images}, whole, at the training scale, networks in evaluation mode",
        f"teacher: {result['teacher']}; student: {result['student']}",
        f"sets: {result['threshold_text']}, rule {result['rule']}, weight {result['weight']}; "
        f"trained with loss {result['loss']}",
        *(f"note: {note}" for note in result["notes"]),
    ]


def page(result: dict[str, Any]) -> str:
    """Return the content of analysis.md."""
    lines = ["# Fuzzy sets against the masks", "", *(f"- {line}" for line in about(result)), ""]
    lines += ["## Does FPL help, and with which T?", ""]
    lines += [line for sentence in result["answer"] for line in (sentence, "")]
    for name, group in result["groups"].items():
        lines += [f"{name} images:", "", *markdown(thresholds(group["table"]))]
        lines += markdown(confident(group["confident"]))
    lines += [f"- {line}" for line in LEGEND] + [""]
    for name, group in result["groups"].items():
        lines += [
            f"## {name} images",
            "",
            f"{group['pixels']} pixels with a true class: in the fuzzy set at {per_cent(group['coverage'], 2)}, "
            f"the most probable class at {per_cent(group['top1'], 2)}, mean K {number(group['mean_k'])}, expected "
            f"calibration error {per_cent(group['ece'], 2)}.",
            "",
            "The three cases. R: positive gradient score (Eq. 12). Lift: -w dL/dz of the true class; positive values "
            "raise its logit.",
            "",
            *markdown(cases(group)),
            *markdown(sizes(group)),
            *(markdown(confusions(group)) if group["confusions"] else []),
        ]
    if result.get("figures"):
        lines += ["## Figures", ""]
        for file, caption in result["figures"].items():
            lines += [f"{caption}:", "", f"![{caption}]({file})", ""]
    return "\n".join(lines)
