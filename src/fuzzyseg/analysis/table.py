"""Tables for choosing T before training: statistics of the fuzzy sets by threshold, and accuracy by confidence."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fuzzyseg.analysis.sums import Sums
from fuzzyseg.losses.fpl.assignment import SortedClasses, assign_sorted
from fuzzyseg.losses.fpl.options import PAPER, FPLOptions
from fuzzyseg.losses.supervised import VOID

THRESHOLDS = (0.5, 0.75, 0.85, 0.9, 0.95, 0.99)
"""The values of T in Table 4 of the FPL paper."""

LEVELS = (0.5, 0.75, 0.9, 0.95, 0.99)
"""Confidence thresholds tau, one per row of the second table."""


@dataclass(frozen=True)
class ThresholdTable(Sums):
    """Pixel counts for each of M thresholds, over labelled pixels.

    pixels, top1 (0-dim): all pixels, and those whose most probable class is correct. covered (M,): pixels whose true
    class is in the set. torn (M,): pixels with p1 <= T < p1 + p2. k (M,C): pixels with K = 1, ..., C.
    """

    pixels: Tensor
    top1: Tensor
    covered: Tensor
    torn: Tensor
    k: Tensor

    def numbers(self, thresholds: Sequence[float]) -> list[dict[str, Any]]:
        """Return a row per threshold: fractions of all pixels (`rescued`: of the wrong ones), 0 if there are none."""
        pixels, top1 = max(1, int(self.pixels)), int(self.top1)
        sizes = torch.arange(1, self.k.shape[1] + 1)
        return [
            {
                "threshold": t,
                "coverage": covered / pixels,
                "top1": top1 / pixels,
                "rescued": (covered - top1) / max(1, int(self.pixels) - top1),
                "mean_k": int((k * sizes).sum()) / pixels,
                "k_histogram": [count / pixels for count in k.tolist()],
                "torn": torn / pixels,
            }
            for t, covered, torn, k in zip(thresholds, self.covered.tolist(), self.torn.tolist(), self.k, strict=True)
        ]


def count_thresholds(
    ranking: SortedClasses, target: Tensor, thresholds: Sequence[float] = THRESHOLDS, *, options: FPLOptions = PAPER
) -> ThresholdTable:
    """Return the counts for a batch. ranking: `sorted_classes` of logits (B,C,H,W). target (B,H,W): true classes."""
    classes = ranking.p.shape[1]
    with torch.no_grad():
        known = target != VOID
        truth = torch.where(known, target, 0).long().unsqueeze(1)
        rank = (ranking.order == truth).byte().argmax(1, keepdim=True)  # the true class's rank by probability, from 0
        covered, torn, k = [], [], []
        for t in thresholds:
            size = assign_sorted(ranking, t, options).positives()
            covered.append((rank < size).squeeze(1)[known].sum())
            torn.append(((ranking.total[:, 0] <= t) & (t < ranking.total[:, 1]))[known].sum())
            k.append(torch.bincount(size.squeeze(1)[known].cpu() - 1, minlength=classes))
        top1 = (rank == 0).squeeze(1)[known].sum()
    counts = (torch.stack(each).cpu() for each in (covered, torn, k))
    return ThresholdTable(known.sum().cpu(), top1.cpu(), *counts)


@dataclass(frozen=True)
class Confident(Sums):
    """Pixel counts for each of M confidence thresholds tau, over labelled pixels.

    pixels (0-dim): all pixels. above (M,): pixels with a confidence of at least tau. right (M,): those of them whose
    most probable class is correct.
    """

    pixels: Tensor
    above: Tensor
    right: Tensor

    def numbers(self, levels: Sequence[float]) -> list[dict[str, Any]]:
        """Return a row per tau: the fraction of pixels above it, and their accuracy (None if there are none).

        reliable: whether the accuracy is at least tau; if so, `method.confidence=gate` keeps the confidence mask.
        """
        total = max(1, int(self.pixels))
        return [
            {
                "confidence": tau,
                "share": above / total,
                "right": right / above if above else None,
                "reliable": above > 0 and right >= tau * above,
            }
            for tau, above, right in zip(levels, self.above.tolist(), self.right.tolist(), strict=True)
        ]


def count_confident(logits: Tensor, target: Tensor, levels: Sequence[float] = LEVELS) -> Confident:
    """Return the counts for a batch. logits (B,C,H,W): teacher logits. target (B,H,W): true classes, 255 for void."""
    with torch.no_grad():
        known = target != VOID
        confidence, label = torch.softmax(logits.float(), 1).max(1)
        right = (label == target)[known]
        above = torch.stack([(confidence >= tau)[known] for tau in levels])  # (M,N)
        return Confident(known.sum().cpu(), above.sum(1).cpu(), (above & right).sum(1).cpu())
