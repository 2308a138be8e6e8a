"""Maximum IoU that a class can reach at a network's resolution, computed from masks only."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from fuzzyseg.data import VOID, Item, Reader
from fuzzyseg.data.io.header import file_size
from fuzzyseg.data.labels.blocks import label_reader
from fuzzyseg.data.sample import Size
from fuzzyseg.inference.metrics import confusion_matrix
from fuzzyseg.inference.sliding_window import tiles_of
from fuzzyseg.ops.resize import resize_labels


def ceiling_matrix(items: Sequence[Item], reader: Reader, *, image_size: Size | None, stride: float) -> Tensor:
    """Return the confusion matrix (C,C) int64 of masks (rows) and their `round_trip` (columns).

    items: images with masks of the same size. image_size: (H, W) to which images are resized, if any. stride: ratio of
    the input size to the size of the network's logits. Without resizing, masks are read in tiles, so large masks are
    never loaded in full. Raises DataError.
    """
    matrix = torch.zeros(reader.classes, reader.classes, dtype=torch.long)
    for item in items:
        size = file_size(item.image)
        read = label_reader(item, classes=reader.classes, ignore_index=reader.ignore_index)
        for box in tiles_of(size) if image_size is None else [(0, 0, *size)]:
            truth = torch.from_numpy(read(box)).long()
            height, width = image_size or truth.shape
            restored = round_trip(truth, (math.ceil(height / stride), math.ceil(width / stride)))
            matrix += confusion_matrix(restored, truth, reader.classes)
    return matrix


def round_trip(truth: Tensor, grid: Size) -> Tensor:
    """Pool labels (H,W) int64 to a grid of (h, w) cells, upsample them again, and return the result (H,W) int64.

    Each cell contains the fraction of each class among its non-void pixels, like the prediction of a calibrated
    network. The fractions are resized bilinearly, like logits, and each pixel gets the class with the largest fraction.
    Both directions use align_corners=False, since a network can learn to compensate for a constant shift. This is not a
    strict bound, since a network may predict other values.
    """
    classes = torch.unique(truth[truth != VOID])  # type: ignore[no-untyped-call]
    if not len(classes):
        return torch.zeros_like(truth)
    valid = _shares(truth != VOID, grid).clamp_min(1e-6)
    shares = torch.stack([_shares(truth == label, grid) / valid for label in classes.tolist()], 1)
    restored: Tensor = classes[resize_labels(shares, truth.shape)[0]]
    return restored


def _shares(present: Tensor, grid: Size) -> Tensor:
    """Return the mean of a bool map (H,W) in each grid cell, as (1,h,w)."""
    return F.adaptive_avg_pool2d(present.float().unsqueeze(0), grid)
