"""The highest IoU that a class can be expected to reach at a network's resolution, found from masks alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fuzzyseg.data import VOID, Item, Reader
from fuzzyseg.data.io.header import file_size
from fuzzyseg.data.labels.blocks import label_reader
from fuzzyseg.data.sample import Size
from fuzzyseg.inference.sliding_window import tiles_of
from fuzzyseg.ops.resize import resize_labels

LEAST = 0.5
"""Classes with a lower ceiling are left out of `miou_resolvable`."""


def resolvable(per_class: Mapping[str, float | None], ceiling: Mapping[str, float | None]) -> dict[str, Any]:
    """`miou_resolvable`, the mean IoU over the classes whose ceiling is at least `LEAST`, with `ceiling` and the limit.

    per_class: IoU by class name. ceiling: by class name, None for a class that is in no mask; such a class is left
    out. The mean is None where no class is left.
    """
    kept = [iou for name, iou in per_class.items() if iou is not None and (ceiling.get(name) or 0.0) >= LEAST]
    mean = sum(kept) / len(kept) if kept else None
    return {"miou_resolvable": mean, "ceiling": dict(ceiling), "ceiling_least": LEAST}


def ceiling_matrix(items: Sequence[Item], reader: Reader, *, image_size: Size | None, stride: float) -> Tensor:
    """Confusion matrix (C,C) int64 between the masks and their `round_trip`: rows truth, columns round trip.

    items: with masks of their images' size. reader: with the masks' classes. image_size: (H, W) that every image is
    resized to, or None. stride: pixels of the network's input per cell of its logits. Masks of images that are not
    resized are taken in the tiles of `tiles_of`, so that a large one is never held whole. Raises DataError.
    """
    count = reader.classes
    matrix = torch.zeros(count * count, dtype=torch.long)
    for truth in _truths(items, reader, whole=image_size is not None):
        height, width = image_size or truth.shape
        found = round_trip(truth, (math.ceil(height / stride), math.ceil(width / stride)))
        valid = truth != VOID
        matrix += torch.bincount(truth[valid] * count + found[valid], minlength=count * count)
    return matrix.view(count, count)


def _truths(items: Sequence[Item], reader: Reader, *, whole: bool) -> Iterator[Tensor]:
    for item in items:
        size = file_size(item.image)
        read = label_reader(item, classes=reader.classes, ignore_index=reader.ignore_index)
        for box in [(0, 0, *size)] if whole else tiles_of(size):
            yield torch.from_numpy(read(box)).long()


def round_trip(truth: Tensor, grid: Size) -> Tensor:
    """What is left of truth (H,W) int64 after a grid of (h, w) cells: labels (H,W) int64.

    Each cell holds the share of every class among its pixels that are not void (area averaging: nothing is missed, and
    a share is what a calibrated network would predict there). The shares are brought back bilinearly as logits are,
    and each pixel gets the largest. Both directions keep the centres of the cells in place (align_corners=False),
    since a network learns to make up for a constant shift. Not a strict bound: a network may predict other values than
    shares.
    """
    classes = torch.unique(truth[truth != VOID])  # type: ignore[no-untyped-call]
    if not len(classes):
        return torch.zeros_like(truth)
    valid = _shares(truth != VOID, grid).clamp_min(1e-6)
    shares = torch.stack([_shares(truth == label, grid) / valid for label in classes.tolist()], 1)
    found: Tensor = classes[resize_labels(shares, truth.shape)[0]]
    return found


def _shares(there: Tensor, grid: Size) -> Tensor:
    """Mean (1,h,w) of there (H,W) bool over the cells of a grid."""
    return F.adaptive_avg_pool2d(there.float().unsqueeze(0), grid)
