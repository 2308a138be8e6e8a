"""Functions that resize logits, labels and masks, and a context manager that disables autocast."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.nn import functional as F

_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Return a context manager that disables autocast, so that losses use fp32 or the precision of their inputs."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def resize_logits(logits: Tensor, size: Sequence[int], *, align_corners: bool = True) -> Tensor:
    """Interpolate logits (B,C,*spatial) to `size`, one entry per spatial axis; a no-op if they already have that size.

    align_corners is True by default, as in the heads of segmentation_models_pytorch.
    """
    if tuple(logits.shape[2:]) == tuple(size):
        return logits
    return F.interpolate(logits, size=tuple(size), mode=_MODES[logits.dim() - 2], align_corners=align_corners)


def resize_labels(scores: Tensor, size: Sequence[int]) -> Tensor:
    """Return the argmax over classes, (B,*size) int64, of scores (B,C,h,w) resized to size (align_corners=False).

    Resizes one class at a time, so that the resized scores are never all in memory. Ties go to the first class.
    """
    best = resize_logits(scores[:, :1], size, align_corners=False)[:, 0].clone()
    label = torch.zeros_like(best, dtype=torch.long)
    for index in range(1, scores.shape[1]):
        value = resize_logits(scores[:, index : index + 1], size, align_corners=False)[:, 0]
        label[value > best] = index
        best = torch.maximum(best, value)
    return label


def nearest_cells(values: Tensor, size: Sequence[int]) -> Tensor:
    """Resize a map (B,H,W), numeric or bool, to `size` = (h,w) by nearest neighbour, keeping its dtype."""
    resized = F.interpolate(values.unsqueeze(1).float(), size=tuple(size), mode="nearest")
    return resized.squeeze(1).to(values.dtype)


def whole_cells(valid: Tensor, size: Sequence[int]) -> Tensor:
    """Return which positions (B,h,w) of a feature map cover no invalid pixel. valid (B,H,W) bool."""
    return F.adaptive_avg_pool2d(valid.unsqueeze(1).float(), (size[0], size[1])).squeeze(1) > 1 - 1e-6
