"""Perturbations of a feature map: Y. Ouali et al., "Semi-supervised semantic segmentation with cross-consistency
training", CVPR 2020. What is random is drawn with torch's own generator, on the features' device.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def feature_noise(features: Tensor, limit: float) -> Tensor:
    """Features times 1 + n, n uniform in [-limit, limit] for each channel and cell, the same for all images (F-Noise).

    features (B,D,h,w).
    """
    return features * (1 + torch.empty_like(features[:1]).uniform_(-limit, limit))


def feature_drop(features: Tensor, low: float, high: float) -> Tensor:
    """Features of zero where their channel mean is at least u times the image's largest (F-Drop).

    u is uniform in [low, high], one number for all images: the most active cells are dropped. features (B,D,h,w).
    """
    activity = features.mean(1, keepdim=True)  # (B,1,h,w)
    u = low + (high - low) * torch.rand((), device=features.device)
    return features * (activity < u * activity.amax((2, 3), keepdim=True))


def foreground(logits: Tensor, background: int, cells: tuple[int, int]) -> Tensor:
    """Where the background class is not predicted: (B,*cells) bool, `cells` the features' size. logits (B,C,h,w)."""
    mask = (logits.argmax(1, keepdim=True) != background).float()
    if tuple(mask.shape[-2:]) != tuple(cells):
        mask = F.interpolate(mask, size=cells, mode="nearest")
    return mask.squeeze(1) > 0
