"""The three cases of section 3.4 of the FPL paper: how frequent, and what each loss does there to the true class."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from fuzzyseg.analysis.pixels import MISSED, RESCUED, RIGHT, Pixels

NAMES = {RIGHT: "label right", RESCUED: "label wrong, truth in the set", MISSED: "truth outside the set"}


class Cases(NamedTuple):
    """Sums over the pixels whose truth is known, a row for each case; they add up over images.

    pixels (3,). k (3,C): pixels with K = 1, ..., C. score, lift (3,2) float64: of the hard and of the fuzzy loss, see
    `Pixels`; lift is NaN where it was not measured.
    """

    pixels: Tensor
    k: Tensor
    score: Tensor
    lift: Tensor

    def plus(self, other: Cases) -> Cases:
        """The sums of both."""
        return Cases(*(a + b for a, b in zip(self, other, strict=True)))

    def numbers(self, *, brief: bool = False) -> dict[str, Any]:
        """For each case its share of the pixels, mean score and mean lift of either loss, and its K histogram.

        `effect` is the mean lift times the share: what the case adds to the mean over all pixels. A mean without pixels
        is None. brief: share and score alone.
        """
        total = max(1, int(self.pixels.sum()))
        rows: dict[str, Any] = {}
        for row, case in enumerate((RIGHT, RESCUED, MISSED)):
            pixels = int(self.pixels[row])
            found: dict[str, Any] = {"share": pixels / total, "score": _means(self.score[row], pixels)}
            if not brief:
                found["lift"] = _means(self.lift[row], pixels)
                found["effect"] = _means(self.lift[row], total)
                found["k_histogram"] = [count / max(1, pixels) for count in self.k[row].tolist()]
            rows[str(case)] = found
        return rows

    def effect(self) -> dict[str, float | None]:
        """The mean lift of either loss over all pixels."""
        return _means(self.lift.sum(0), int(self.pixels.sum()))


def _means(sums: Tensor, pixels: int) -> dict[str, float | None]:
    """Sums for the hard and the fuzzy loss over a number of pixels; None where there is none or it was not measured."""
    values = (sums / pixels).tolist() if pixels else [torch.nan, torch.nan]
    return {name: None if value != value else value for name, value in zip(("hard", "fuzzy"), values, strict=True)}


def count_cases(pixels: Pixels) -> Cases:
    """The sums of one batch."""
    classes = pixels.order.shape[1]
    case = pixels.case.flatten().cpu().long()
    seen = case > 0
    row = case[seen] - 1
    k = torch.bincount(row * classes + pixels.k.flatten().cpu()[seen] - 1, minlength=3 * classes).view(3, classes)

    def sums(values: Tensor) -> Tensor:
        return torch.bincount(row, values.flatten().cpu()[seen].double(), minlength=3)

    score = torch.stack([sums(values) for values in pixels.score], 1)
    lift = torch.full((3, 2), torch.nan, dtype=torch.float64)
    if pixels.lift is not None:
        lift = torch.stack([sums(values) for values in pixels.lift], 1)
    return Cases(torch.bincount(row, minlength=3), k, score, lift)
