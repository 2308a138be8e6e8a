"""The table that is looked at before any training: what the fuzzy sets would hold, for several thresholds T."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fuzzyseg.analysis.pixels import filled
from fuzzyseg.losses.fpl.assignment import SortedClasses, assign_sorted
from fuzzyseg.losses.fpl.options import SetOptions

THRESHOLDS = (0.5, 0.75, 0.85, 0.9, 0.95, 0.99)
"""The values of T in Table 4 of the FPL paper."""


class ThresholdTable(NamedTuple):
    """Counts over the pixels whose truth is known; they add up over images.

    pixels, top1: 0-dim. For each threshold covered (M,), truth in the fuzzy set; torn (M,), p1 <= T < p1 + p2; and
    k (M,C), pixels with K = 1, ..., C.
    """

    pixels: Tensor
    top1: Tensor
    covered: Tensor
    torn: Tensor
    k: Tensor

    def plus(self, other: ThresholdTable) -> ThresholdTable:
        """The counts of both."""
        return ThresholdTable(*(a + b for a, b in zip(self, other, strict=True)))

    def numbers(self, thresholds: Sequence[float]) -> list[dict[str, Any]]:
        """A row for each threshold: shares of the pixels, and of the wrong ones `rescued`; means without pixels: 0."""
        pixels, top1 = max(1, int(self.pixels)), int(self.top1)
        sizes = torch.arange(1, self.k.shape[1] + 1)
        rows = []
        for t, covered, torn, k in zip(thresholds, self.covered.tolist(), self.torn.tolist(), self.k, strict=True):
            rows.append(
                {
                    "threshold": t,
                    "coverage": covered / pixels,
                    "top1": top1 / pixels,
                    "rescued": (covered - top1) / max(1, int(self.pixels) - top1),
                    "mean_k": int((k * sizes).sum()) / pixels,
                    "k_histogram": [count / pixels for count in k.tolist()],
                    "torn": torn / pixels,
                }
            )
        return rows


def count_thresholds(
    ranking: SortedClasses,
    target: Tensor,
    thresholds: Sequence[float] = THRESHOLDS,
    *,
    options: SetOptions | None = None,
    ignore_index: int = 255,
) -> ThresholdTable:
    """The counts of one batch. ranking: `sorted_classes` of the logits (B,C,H,W); target (B,H,W), true classes."""
    chosen = filled(options)
    classes = ranking.p.shape[1]
    with torch.no_grad():
        seen = target != ignore_index
        truth = torch.where(seen, target, 0).long().unsqueeze(1)
        place = (ranking.order == truth).byte().argmax(1, keepdim=True)  # of the truth in the falling order, from 0
        covered, torn, k = [], [], []
        for t in thresholds:
            size = assign_sorted(ranking, t, chosen).positives()
            covered.append((place < size).squeeze(1)[seen].sum())
            torn.append(((ranking.total[:, 0] <= t) & (t < ranking.total[:, 1]))[seen].sum())
            k.append(torch.bincount(size.squeeze(1)[seen].cpu() - 1, minlength=classes))
        top1 = (place == 0).squeeze(1)[seen].sum()
    return ThresholdTable(
        seen.sum().cpu(), top1.cpu(), torch.stack(covered).cpu(), torch.stack(torn).cpu(), torch.stack(k)
    )
