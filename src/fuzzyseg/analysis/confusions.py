"""Which confusions of classes FPL rescues: the pseudo label is wrong, the truth lies in the fuzzy set all the same."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from fuzzyseg.analysis.pixels import RESCUED, Pixels


class Confusions(NamedTuple):
    """Counts (C,C), rows the true class, columns the pseudo label, over the pixels whose truth is known.

    pixels: all of them. rescued: those whose label is wrong and whose truth lies in the fuzzy set. They add up over
    images.
    """

    pixels: Tensor
    rescued: Tensor

    def plus(self, other: Confusions) -> Confusions:
        """The counts of both."""
        return Confusions(*(a + b for a, b in zip(self, other, strict=True)))

    def numbers(self, most: int = 20) -> list[dict[str, Any]]:
        """The pairs of classes with the most wrong pixels: truth, label, share of all pixels, and of these rescued."""
        total = max(1, int(self.pixels.sum()))
        wrong = self.pixels.clone().fill_diagonal_(0)
        classes, rows = len(wrong), []
        for place in wrong.flatten().argsort(descending=True, stable=True)[:most].tolist():
            truth, label = divmod(place, classes)
            pixels = int(wrong[truth, label])
            if pixels:
                rescued = int(self.rescued[truth, label]) / pixels
                rows.append({"truth": truth, "label": label, "share": pixels / total, "rescued": rescued})
        return rows


def count_confusions(pixels: Pixels, target: Tensor) -> Confusions:
    """The counts of one batch; target as in `look`."""
    classes = pixels.order.shape[1]
    case = pixels.case.flatten().cpu()
    seen = case > 0
    pair = (target.long() * classes + pixels.label).flatten().cpu()
    counts = (torch.bincount(pair[where], minlength=classes**2) for where in (seen, case == RESCUED))
    return Confusions(*(count.view(classes, classes) for count in counts))
