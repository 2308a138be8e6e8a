"""Whether confident pixels are right: what a mask of confident pixels rests on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

LEVELS = (0.5, 0.75, 0.9, 0.95, 0.99)
"""Confidences that are looked at."""


class Confident(NamedTuple):
    """Counts over the pixels whose truth is known, for each of M confidences tau; they add up over images.

    pixels: 0-dim. above (M,): pixels with a confidence of tau or more; right (M,): those of them whose most probable
    class is the true one.
    """

    pixels: Tensor
    above: Tensor
    right: Tensor

    def plus(self, other: Confident) -> Confident:
        """The counts of both."""
        return Confident(*(a + b for a, b in zip(self, other, strict=True)))

    def numbers(self, levels: Sequence[float]) -> list[dict[str, Any]]:
        """A row for each tau: share of the pixels above it, share of these that is right (None where there are none).

        reliable: whether that is tau at least, so that a reliability gate keeps its mask.
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


def count_confident(
    logits: Tensor, target: Tensor, levels: Sequence[float] = LEVELS, *, ignore_index: int = 255
) -> Confident:
    """The counts of one batch. logits (B,C,H,W) of the teacher; target (B,H,W), pixels of `ignore_index` left out."""
    with torch.no_grad():
        seen = target != ignore_index
        confidence, label = torch.softmax(logits.float(), 1).max(1)
        right = (label == target)[seen]
        above = torch.stack([(confidence >= tau)[seen] for tau in levels])  # (M,N)
        return Confident(seen.sum().cpu(), above.sum(1).cpu(), (above & right).sum(1).cpu())
