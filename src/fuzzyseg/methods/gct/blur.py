"""Gaussian blur of maps."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def odd_kernel(length: int, part: int) -> int:
    """Kernel length for a `part`-th of `length`: length // part, plus one if that is even."""
    size = length // part
    return size if size % 2 else size + 1


def gaussian_blur(maps: Tensor, kernel: int) -> Tensor:
    """Maps (B,D,H,W) blurred per channel by a Gaussian of odd length `kernel`, with reflection padding.

    The standard deviation is 0.3 ((kernel - 1) / 2 - 1) + 0.8. On axes too short for the padding the kernel is cropped.
    """
    channels = maps.shape[1]
    for axis, length in ((2, maps.shape[2]), (3, maps.shape[3])):
        half = min(kernel // 2, length - 1)
        place = torch.arange(-half, half + 1, device=maps.device, dtype=maps.dtype)
        sigma = 0.3 * ((kernel - 1) / 2 - 1) + 0.8
        weight = torch.exp(-(place**2) / (2 * sigma**2))
        shape = [1, 1, 1, 1]
        shape[axis] = 2 * half + 1
        weight = (weight / weight.sum()).view(shape).expand(channels, *[-1] * 3)
        pad = (0, 0, half, half) if axis == 2 else (half, half, 0, 0)
        maps = F.conv2d(F.pad(maps, pad, mode="reflect"), weight, groups=channels)
    return maps
