"""Logits to image size: the one place.

It stands in `ops`, not in `networks`, because the losses up-sample too and may not import a network.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


def resize_logits(logits: Tensor, size: Sequence[int], *, align_corners: bool = True) -> Tensor:
    """Logits (B,C,*spatial) interpolated to `size`, one entry per spatial axis; untouched where they have it already.

    align_corners is True by default, as in the heads of segmentation_models_pytorch.
    """
    if tuple(logits.shape[2:]) == tuple(size):
        return logits
    return F.interpolate(logits, size=tuple(size), mode=_MODES[logits.dim() - 2], align_corners=align_corners)


def resize_labels(scores: Tensor, size: Sequence[int]) -> Tensor:
    """argmax over the classes (B,*size) int64 of scores (B,C,h,w) resized to size (align_corners=False).

    One class at a time, so that the resized scores are never held together. The first of equal classes wins.
    """
    best = resize_logits(scores[:, :1], size, align_corners=False)[:, 0].clone()
    label = torch.zeros_like(best, dtype=torch.long)
    for index in range(1, scores.shape[1]):
        value = resize_logits(scores[:, index : index + 1], size, align_corners=False)[:, 0]
        label[value > best] = index
        best = torch.maximum(best, value)
    return label


def resize_valid(valid: Tensor, size: Sequence[int]) -> Tensor:
    """valid (B,H,W) bool at `size` = (h,w), by the nearest pixel."""
    return F.interpolate(valid.unsqueeze(1).float(), size=tuple(size), mode="nearest").squeeze(1) > 0
