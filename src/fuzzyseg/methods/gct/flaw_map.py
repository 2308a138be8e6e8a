"""Flaw maps: what they should be where labels are, how they are compared, and who then teaches whom.

Z. Ke et al., "Guided collaborative training for pixel-wise semi-supervised learning", ECCV 2020. All maps are
(B,1,H,W), in fp32 and without gradient; the larger, the worse the prediction.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fuzzyseg.losses.arguments import full_precision
from fuzzyseg.losses.supervised import VOID
from fuzzyseg.methods.gct.blur import gaussian_blur, odd_kernel


def flaw_target(probabilities: Tensor, mask: Tensor, *, mu: float = 0.5, nu: int = 1) -> Tensor:
    """What a flaw detector should say of probabilities (B,C,H,W) for the labels mask (B,H,W) int64: in [0, 1].

    mu times the sum over the classes of |one-hot - p|, 0 on void; blurred (kernel H/8); nu times dilated (3x3) and
    blurred (kernel H/4); then each image from 0 to 1. (In the published code void is "half wrong", mu.)
    """
    with torch.no_grad(), full_precision(probabilities.device):
        p = probabilities.float()
        known = (mask != VOID).unsqueeze(1)
        label = torch.where(mask == VOID, 0, mask).unsqueeze(1)
        # sum |one-hot - p| = (1 - p_y) + sum of the others, and these sum to 1 - p_y
        flaw = torch.where(known, mu * 2 * (1 - p.gather(1, label)), 0)
        height = flaw.shape[2]
        flaw = gaussian_blur(flaw, odd_kernel(height, 8))
        for _ in range(nu):
            flaw = gaussian_blur(F.max_pool2d(flaw, 3, 1, 1), odd_kernel(height, 4))
        return _stretched(flaw)


def handled(flaw: Tensor, *, clip: float = 0.1) -> Tensor:
    """A detector's map made ready to be compared: not negative, blurred (kernel H/16), each image from 0 to 1.

    An image whose largest flaw is at most `clip` has none: 0 everywhere. (In the published code it falls below 0, so
    that this model wins against one that is flawless too.) The input stays as it is.
    """
    with torch.no_grad(), full_precision(flaw.device):
        flaw = gaussian_blur(flaw.float().clamp(min=0), odd_kernel(flaw.shape[2], 16))
        return _stretched(flaw) * (flaw.amax((2, 3), keepdim=True) > clip)


def teaching(first: Tensor, second: Tensor, *, xi: float = 0.6) -> tuple[Tensor, Tensor, Tensor]:
    """From two handled maps: where the first learns from the second, where the second from the first, where both fail.

    All (B,1,H,W) bool. Above xi a map counts as 1; who has the larger one learns; where they are equal nobody does.
    """
    bad_first, bad_second = first > xi, second > xi
    one, two = torch.where(bad_first, 1.0, first), torch.where(bad_second, 1.0, second)
    return one > two, two > one, bad_first & bad_second


def _stretched(maps: Tensor) -> Tensor:
    low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
    return (maps - low) / (high - low + 1e-9)
