"""Perturbations of a feature map (B,D,h,w), drawn by torch's global generator (Y. Ouali et al., CVPR 2020)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def feature_noise(features: Tensor, limit: float) -> Tensor:
    """F-Noise: features times 1 + n, n uniform in [-limit, limit] per channel and cell, the same for all images."""
    return features * (1 + torch.empty_like(features[:1]).uniform_(-limit, limit))


def feature_drop(features: Tensor, low: float, high: float) -> Tensor:
    """F-Drop: zero the most active cells, whose channel mean is at least u times the image's largest.

    u is uniform in [low, high], one number for all images.
    """
    activity = features.mean(1, keepdim=True)  # (B,1,h,w)
    u = low + (high - low) * torch.rand((), device=features.device)
    return features * (activity < u * activity.amax((2, 3), keepdim=True))


def foreground(logits: Tensor, background: int, cells: tuple[int, int]) -> Tensor:
    """Where another class than the background is predicted: (B,*cells) bool. logits (B,C,h,w); cells: feature size."""
    mask = (logits.argmax(1, keepdim=True) != background).float()
    if tuple(mask.shape[-2:]) != tuple(cells):
        mask = F.interpolate(mask, size=cells, mode="nearest")
    return mask.squeeze(1) > 0
