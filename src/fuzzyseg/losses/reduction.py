"""From a map over pixels to a number: means and histograms over valid pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from fuzzyseg.ops import distributed


def masked_mean(values: Tensor, valid: Tensor) -> Tensor:
    """Mean of `values` over valid pixels: the one place where training takes a mean over pixels.

    values, valid (B,*spatial); valid is bool, or non-negative weights. The sum of values times weights is divided by
    the sum of the weights *averaged over the processes*, so that DDP's average of the gradients is that of the mean
    over the global batch. Nothing valid gives 0, with a graph. Where the weight is 0 no value counts, not even a NaN.
    Weights of half precision are summed in the precision of the values.
    """
    if valid.dtype == torch.bool:  # the same without two maps of weights, which are all 1
        count = valid.sum().to(values.dtype)
        return torch.where(valid, values, 0).sum() / _divisor(distributed.mean(count))
    weight = valid.detach().to(values.dtype)
    total = (torch.where(weight > 0, values, 0) * weight).sum()
    return total / _divisor(distributed.mean(weight.sum()))


def local_mean(values: Tensor, valid: Tensor | None) -> Tensor:
    """The mean over valid pixels of this process alone, 0 if there are none. valid None: all of them.

    Unlike in `masked_mean` a NaN counts wherever it stands: a network that gives one is broken, and through the product
    with 0 it would poison the gradient without being seen in the loss.
    """
    if valid is None:
        return values.sum() / max(values.numel(), 1)
    weight = valid.detach().to(values.dtype)
    return (values * weight).sum() / _divisor(weight.sum())


def histogram(index: Tensor, valid: Tensor | None, bins: int) -> Tensor:
    """Share of the valid pixels in each bin: (bins,), fp32, without gradient. index (B,*spatial) int64."""
    index = index.reshape(len(index), index.numel() // max(len(index), 1))  # -1 says nothing of an empty batch
    weight = torch.ones_like(index, dtype=torch.float32) if valid is None else valid.reshape(index.shape).float()
    # One row per image: fewer collisions on a GPU than one row for all, and counts that fp32 holds exactly.
    # (bincount would make the GPU wait.)
    counts = weight.new_zeros((index.shape[0], bins)).scatter_add_(1, index, weight).sum(0)
    return counts / _divisor(counts.sum())


def _divisor(total: Tensor) -> Tensor:
    return torch.where(total > 0, total, torch.ones_like(total))
