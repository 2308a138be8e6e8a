"""Confusion matrix and the scores computed from it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fuzzyseg.data import VOID, DataError

MIN_CEILING = 0.5
"""Minimum ceiling of the classes included in `miou_resolvable`."""


def confusion_matrix(predicted: Tensor, truth: Tensor, classes: int) -> Tensor:
    """Count pixels by truth (rows) and prediction (columns), ignoring those with truth 255 (void): (C,C) int64.

    predicted, truth: class indices of the same shape. The matrices of several images can be added.
    """
    known = truth != VOID
    pairs = truth[known].long() * classes + predicted[known].long()
    return torch.bincount(pairs, minlength=classes**2).view(classes, classes)


def scores(matrix: Tensor, classes: Sequence[str]) -> dict[str, Any]:
    """Compute scores in [0, 1] from a confusion matrix (C,C), and count its `pixels`. Raises DataError if it is empty.

    `miou`: mean IoU of the classes that occur in the truth or in a prediction. `per_class`: IoU by name, None for a
    class that occurs in neither. `accuracy`: fraction of correct pixels. `class_accuracy`: its mean over the classes in
    the truth.
    """
    matrix = matrix.double()
    hit, truth, predicted = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
    if not truth.sum():
        raise DataError("every pixel of the masks is void; expected some with a class (is ignore_index right?)")
    iou = hit / (truth + predicted - hit)  # 0 / 0 is NaN: a class that does not occur
    return {
        "miou": iou.nanmean().item(),
        "per_class": {n: None if value != value else value for n, value in zip(classes, iou.tolist(), strict=True)},
        "accuracy": (hit.sum() / truth.sum()).item(),
        "class_accuracy": (hit / truth).nanmean().item(),
        "pixels": int(truth.sum()),
    }


def resolvable(per_class: Mapping[str, float | None], ceiling: Mapping[str, float | None]) -> dict[str, Any]:
    """Return `miou_resolvable` (mean IoU over classes with a ceiling >= `MIN_CEILING`), `ceiling` and `ceiling_least`.

    per_class: IoU by class name. ceiling: ceiling by class name; classes with None (in no mask) are excluded. The mean
    is None if no class remains.
    """
    kept = [iou for name, iou in per_class.items() if iou is not None and (ceiling.get(name) or 0.0) >= MIN_CEILING]
    mean = sum(kept) / len(kept) if kept else None
    return {"miou_resolvable": mean, "ceiling": dict(ceiling), "ceiling_least": MIN_CEILING}


def bootstrap_error(counts: Tensor, draws: int = 200) -> float | None:
    """Return the bootstrap standard error of the mIoU; None for fewer than two images with labelled pixels.

    counts (N,3,C): numbers of correct, true and predicted pixels per image and class. N images are drawn with
    replacement, `draws` times, using a separate generator (Efron and Tibshirani 1993, chapter 6). The factor sqrt(N /
    (N - 1)) corrects the bias of the bootstrap for small N.
    """
    counts = counts[counts[:, 1].sum(1) > 0]
    n = len(counts)
    if n < 2:
        return None
    drawn = torch.randint(n, (draws, n), generator=torch.Generator().manual_seed(0))
    times = torch.zeros(draws, n, dtype=torch.double).scatter_add_(1, drawn, torch.ones(draws, n, dtype=torch.double))
    hit, truth, predicted = (times @ counts.double().flatten(1)).view(draws, 3, -1).unbind(1)
    return float((hit / (truth + predicted - hit)).nanmean(1).std() * math.sqrt(n / (n - 1)))
