"""How often the truth lies in the fuzzy positive set, beside how often it is the most probable class."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fuzzyseg.losses import assign_fuzzy_positives
from fuzzyseg.losses.fpl.options import Rule, Variant


class Coverage(NamedTuple):
    """Counts over labelled pixels; they add up over images.

    pixels: how many were looked at; covered: truth in the fuzzy set; top1: truth is the most probable class;
    k (C,): pixels with K = 1, 2, ... C.
    """

    pixels: Tensor
    covered: Tensor
    top1: Tensor
    k: Tensor

    def plus(self, other: Coverage) -> Coverage:
        """The counts of both."""
        return Coverage(*(a + b for a, b in zip(self, other, strict=True)))

    def shares(self) -> dict[str, float | list[float]]:
        """Coverage, top-1 accuracy and the K histogram as shares of the pixels (0 where there are none)."""
        pixels = max(1, int(self.pixels))
        return {
            "coverage": int(self.covered) / pixels,
            "top1": int(self.top1) / pixels,
            "k_histogram": [count / pixels for count in self.k.tolist()],
        }


def fuzzy_coverage(
    logits: Tensor,
    target: Tensor,
    *,
    threshold: float | Tensor = 0.9,
    k_cap: int | None = None,
    rule: Rule = "n-1",
    variant: Variant = "paper",
    ignore_index: int = 255,
) -> Coverage:
    """Counts for one batch. logits (B,C,H,W); target (B,H,W) integers; pixels of `ignore_index` are left out."""
    members = assign_fuzzy_positives(logits, threshold=threshold, k_cap=k_cap, rule=rule, variant=variant)
    seen = target != ignore_index
    truth = torch.where(seen, target, 0).long().unsqueeze(1)  # (B,1,H,W)
    covered = members.gather(1, truth).squeeze(1) & seen
    top1 = (logits.argmax(1, keepdim=True) == truth).squeeze(1) & seen
    sizes = members.sum(1)[seen]
    return Coverage(seen.sum(), covered.sum(), top1.sum(), torch.bincount(sizes, minlength=logits.shape[1] + 1)[1:])
