"""Calibration: how often the most probable class is the true one, against how probable the network says it is.

C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On Calibration of Modern Neural Networks", ICML 2017: bins of equal width;
the expected calibration error (ECE) is the mean distance of confidence and accuracy over the bins, by their pixels.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from fuzzyseg.analysis.pixels import RIGHT, Pixels

BINS = 15
"""As in the paper; a confidence c lies in bin ceil(15 c)."""


class Calibration(NamedTuple):
    """Sums over the pixels whose truth is known, for each bin of confidence, (15,); they add up over images."""

    pixels: Tensor
    confidence: Tensor
    right: Tensor

    def plus(self, other: Calibration) -> Calibration:
        """The sums of both."""
        return Calibration(*(a + b for a, b in zip(self, other, strict=True)))

    def error(self) -> float | None:
        """The expected calibration error, a share in [0, 1]; None without pixels."""
        total = int(self.pixels.sum())
        return float((self.confidence - self.right).abs().sum() / total) if total else None

    def numbers(self) -> list[dict[str, Any]]:
        """For each bin its bounds, its share of the pixels, mean confidence and accuracy (None where it is empty)."""
        total, rows = max(1, int(self.pixels.sum())), []
        for place, (pixels, confidence, right) in enumerate(zip(*(side.tolist() for side in self), strict=True)):
            mean = (confidence / pixels, right / pixels) if pixels else (None, None)
            rows.append(
                {
                    "from": place / BINS,
                    "to": (place + 1) / BINS,
                    "share": pixels / total,
                    "confidence": mean[0],
                    "accuracy": mean[1],
                }
            )
        return rows


def count_calibration(pixels: Pixels) -> Calibration:
    """The sums of one batch."""
    case = pixels.case.flatten().cpu()
    seen = case > 0
    confidence = pixels.confidence.flatten().cpu()[seen].double()
    place = ((confidence * BINS).ceil().long() - 1).clamp(0, BINS - 1)
    right = (case[seen] == RIGHT).double()
    return Calibration(
        torch.bincount(place, minlength=BINS),
        torch.bincount(place, confidence, minlength=BINS),
        torch.bincount(place, right, minlength=BINS),
    )
