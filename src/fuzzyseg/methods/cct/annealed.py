"""Annealed cross entropy, which excludes labelled pixels that are confidently correct, fewer of them over time."""

import math

import torch
from torch import Tensor

from fuzzyseg.losses.base import at_size, full_precision
from fuzzyseg.losses.supervised import VOID


def annealed_threshold(step: int, total: int, classes: int, *, end: float = 0.9, share: float = 0.4) -> float:
    """Return eta = s + (end - s) (1 - exp(-5 t)), with s = 1 / classes and t = step / (share * total).

    Y. Ouali et al., CVPR 2020 (abCE). It starts at s and is within 0.7% of `end` at t = 1.
    """
    start = 1 / classes
    return start + (end - start) * (1 - math.exp(-5 * step / (share * total)))


def annealed_mask(logits: Tensor, mask: Tensor, eta: float) -> Tensor:
    """Return `mask` (B,H,W) int64, set to 255 where the true class's probability is at least eta. logits (B,C,h,w)."""
    with torch.no_grad(), full_precision(logits.device):
        p = torch.softmax(at_size(logits, mask.shape[1:]), 1)
        true = p.gather(1, torch.where(mask == VOID, 0, mask).unsqueeze(1)).squeeze(1)
        return torch.where(true < eta, mask, VOID)
