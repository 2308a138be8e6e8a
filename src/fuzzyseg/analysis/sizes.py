"""What comes with each K: how often the truth is covered, the entropy of the teacher, the weight of the pixel."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from fuzzyseg.analysis.pixels import MISSED, RIGHT, Pixels

BINS = 20
"""Of entropy and of weight, both in [0, 1]."""


class Sizes(NamedTuple):
    """Sums for K = 1, ..., C over the pixels whose truth is known; they add up over images.

    pixels, covered (truth in the set), top1 (truth is the most probable class), entropy, weight: (C,). entropies,
    weights: (C,20), pixels for each twentieth of [0, 1].
    """

    pixels: Tensor
    covered: Tensor
    top1: Tensor
    entropy: Tensor
    weight: Tensor
    entropies: Tensor
    weights: Tensor

    def plus(self, other: Sizes) -> Sizes:
        """The sums of both."""
        return Sizes(*(a + b for a, b in zip(self, other, strict=True)))

    def mean_k(self) -> float | None:
        """The mean of K; None without pixels."""
        total = int(self.pixels.sum())
        sizes = torch.arange(1, len(self.pixels) + 1)
        return float((self.pixels * sizes).sum() / total) if total else None

    def numbers(self) -> list[dict[str, Any]]:
        """For each K that occurs: share, coverage, top1, mean entropy and weight, and the twentieths of both."""
        total, rows = max(1, int(self.pixels.sum())), []
        for place, pixels in enumerate(self.pixels.tolist()):
            if pixels:
                row = {"k": place + 1, "share": pixels / total, "coverage": int(self.covered[place]) / pixels}
                row |= {name: float(getattr(self, name)[place]) / pixels for name in ("top1", "entropy", "weight")}
                for name in ("entropies", "weights"):
                    row[name] = [count / pixels for count in getattr(self, name)[place].tolist()]
                rows.append(row)
        return rows


def count_sizes(pixels: Pixels) -> Sizes:
    """The sums of one batch."""
    classes = pixels.order.shape[1]
    case = pixels.case.flatten().cpu()
    seen = case > 0
    k = pixels.k.flatten().cpu()[seen] - 1
    entropy, weight = (values.flatten().cpu()[seen].double() for values in (pixels.entropy, pixels.weight))

    def sums(values: Tensor) -> Tensor:
        return torch.bincount(k, values, minlength=classes)

    def twentieths(values: Tensor) -> Tensor:
        place = (values * BINS).long().clamp(0, BINS - 1)
        return torch.bincount(k * BINS + place, minlength=classes * BINS).view(classes, BINS)

    return Sizes(
        torch.bincount(k, minlength=classes),
        sums((case[seen] != MISSED).double()).long(),
        sums((case[seen] == RIGHT).double()).long(),
        sums(entropy),
        sums(weight),
        twentieths(entropy),
        twentieths(weight),
    )
