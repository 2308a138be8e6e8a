"""Flaw maps of GCT (Z. Ke et al., ECCV 2020): the detector's target, and the comparison of two maps.

All maps are (B,1,H,W), fp32 and without gradient; larger values mean a worse prediction.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from fuzzyseg.losses.base import full_precision
from fuzzyseg.losses.supervised import VOID


def flaw_target(probabilities: Tensor, mask: Tensor, *, mu: float = 0.5, nu: int = 1) -> Tensor:
    """Compute the flaw detector's target, in [0, 1], from probabilities (B,C,H,W) and mask (B,H,W) int64.

    The target is mu times the sum over classes of |one-hot - p|, and 0 on void (mu in the authors' code). It is blurred
    (kernel H/8), then dilated (3x3) and blurred (kernel H/4) nu times, and finally stretched to [0, 1] per image.
    """
    with torch.no_grad(), full_precision(probabilities.device):
        p = probabilities.float()
        known = (mask != VOID).unsqueeze(1)
        label = torch.where(mask == VOID, 0, mask).unsqueeze(1)
        # sum |one-hot - p| = (1 - p_y) + the sum of the other p, which is also 1 - p_y
        flaw = torch.where(known, mu * 2 * (1 - p.gather(1, label)), 0)
        height = flaw.shape[2]
        flaw = gaussian_blur(flaw, odd_kernel(height, 8))
        for _ in range(nu):
            flaw = gaussian_blur(F.max_pool2d(flaw, 3, 1, 1), odd_kernel(height, 4))
        return _stretched(flaw)


def comparable(flaw: Tensor, *, clip: float = 0.1) -> Tensor:
    """Clamp the detector's map to be non-negative, blur it (kernel H/16) and stretch it to [0, 1] per image.

    The map of an image whose largest flaw is at most `clip` is set to 0. (In the authors' code it drops below 0, so
    that this network beats one that is also flawless.)
    """
    with torch.no_grad(), full_precision(flaw.device):
        flaw = gaussian_blur(flaw.float().clamp(min=0), odd_kernel(flaw.shape[2], 16))
        return _stretched(flaw) * (flaw.amax((2, 3), keepdim=True) > clip)


def compare_flaws(first: Tensor, second: Tensor, *, xi: float = 0.6) -> tuple[Tensor, Tensor, Tensor]:
    """Return where the first network learns from the second, where the second learns, and where both are bad.

    first, second: results of `comparable`. The masks are (B,1,H,W) bool. Values above xi count as 1. The network with
    the larger value learns; neither does if the values are equal.
    """
    bad_first, bad_second = first > xi, second > xi
    one, two = torch.where(bad_first, 1.0, first), torch.where(bad_second, 1.0, second)
    return one > two, two > one, bad_first & bad_second


def _stretched(maps: Tensor) -> Tensor:
    low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
    return (maps - low) / (high - low + 1e-9)


def odd_kernel(length: int, part: int) -> int:
    """Return length // part, plus one if that is even: an odd kernel size."""
    size = length // part
    return size if size % 2 else size + 1


def gaussian_blur(maps: Tensor, kernel: int) -> Tensor:
    """Blur maps (B,D,H,W) per channel with a Gaussian of odd length `kernel` and reflection padding.

    The standard deviation is 0.3 ((kernel - 1) / 2 - 1) + 0.8. The kernel is cropped on axes too short for the padding.
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
