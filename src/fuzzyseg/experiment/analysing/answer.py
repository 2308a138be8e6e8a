"""The user's question, answered in plain words: can FPL help me, and with which T?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

USUAL = (0.85, 0.9, 0.95)
"""The thresholds from which the paper takes its own."""

WANTED = 0.95
"""Share of the truth that the sets should hold, as in `loss.calibrated.coverage`."""

WEAK = 0.5
"""A network that is right at fewer pixels than this has its learning before it: what its sets hold says little."""

LITTLE = 0.005
"""Rescued pixels below this share of all pixels are called little."""


def answer(table: Sequence[Mapping[str, Any]], *, classes: int, images: str, rule: str | int = "n-1") -> list[str]:
    """Sentences on the rows of a `ThresholdTable` that holds the usual thresholds, measured on `images` with `rule`.

    T is the smallest of the usual ones whose sets hold the wanted share of the truth, else the largest: the better
    the network (the more labels it had), the smaller, as in Table 5 of the paper. A rule of thumb: whether the score
    rises is for a training to tell.
    """
    if classes == 2:
        return ["No: with two classes every fuzzy set holds one class, and FPL is weighted cross entropy."]
    if isinstance(rule, int):
        return [f"The rule is a fixed K = {rule}: T changes nothing."]
    rows = [row for row in table if row["threshold"] in USUAL]
    enough = [row for row in rows if row["coverage"] >= WANTED]
    row = enough[0] if enough else rows[-1]
    t, many, gain = row["threshold"], 1 - row["k_histogram"][0], row["coverage"] - row["top1"]
    why = (
        f"the smallest of {_listed(USUAL)} whose sets hold {_share(WANTED)} of the truth"
        if enough
        else f"none of {_listed(USUAL)} holds {_share(WANTED)} of the truth; the largest comes closest"
    )
    sentences = [
        f"On {images} the most probable class is right at {_share(row['top1'])} of the pixels. With T = {t:g} the "
        f"fuzzy set holds the truth at {_share(row['coverage'])}: it rescues {_share(row['rescued'])} of the wrong "
        f"labels, {_share(gain)} of all pixels. The price: {_share(many)} of the pixels get more than one class; "
        f"{_share(gain / many if many else 0)} of these are the rescued ones.",
    ]
    if row["top1"] < WEAK:
        sentences.append(
            "The network is right at fewer than half of the pixels, so this says little yet: train it on the labels "
            "first, and ask again."
        )
    elif gain < LITTLE:
        sentences.append(
            f"There is little to gain: less than {_share(LITTLE)} of all pixels would be rescued. The labels are "
            "right already, or the network is sure where it is wrong; then FPL is close to weighted cross entropy."
        )
    else:
        sentences.append(f"FPL can help. Start with T = {t:g} ({why}).")
    if row["torn"] > many and rule == "n-1":
        sentences.append(
            f"{_share(row['torn'])} of the pixels have p1 <= T < p1 + p2: two classes share them, and the paper's rule "
            f"keeps one. `loss.rule=continuous` (or `n`) counts the second one too, on more pixels than the "
            f"{_share(many)} with K > 1."
        )
    sentences.append(
        "This says what the sets would hold, not that the score rises: the gain is for a training to tell. "
        "`loss.threshold=calibrated` chooses T on labelled images that are held back, so that validation images stay "
        "untouched."
    )
    return sentences


def _share(value: float) -> str:
    return f"{100 * value:.3g} %"


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
