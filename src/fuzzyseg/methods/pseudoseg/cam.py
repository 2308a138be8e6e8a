"""Class activation maps (R. Selvaraju et al., "Grad-CAM", ICCV 2017), and their attention, fusion and sharpening.

Attention, fusion and sharpening follow Y. Zou et al., "PseudoSeg", ICLR 2021. Notation: K and C, the number of
classes of the classifier and of the network.
"""

from typing import Literal

import torch
from torch import Tensor


def activation_maps(features: Tensor, weight: Tensor, present: Tensor) -> Tensor:
    """Compute Grad-CAM for a classifier with mean pooling and a linear layer: (B,K,h,w) in [0, 1], without gradient.

    The gradient of class k's logit at any position is weight[k] / (h w), so the map is the positive part of the linear
    layer's output at each position, divided by its maximum. Maps of absent classes, or without a positive value, are 0.
    features (B,D,h,w); weight (K,D); present (B,K) bool.
    """
    with torch.no_grad():
        maps = torch.einsum("bdhw,kd->bkhw", features.float(), weight.float()).clamp(min=0)
        maps = maps * present[:, :, None, None]
        largest = maps.amax((2, 3), keepdim=True)
        return maps / torch.where(largest > 0, largest, 1)


def attended(maps: Tensor, query: Tensor, key: Tensor, valid: Tensor) -> Tensor:
    """Apply residual self-attention, which adds an attention-weighted mean over all positions: (B,K,h,w).

    Position i attends to j with softmax over j of query_i . key_j / sqrt(d). Invalid positions are not attended to;
    they, and all positions of an image without valid ones, attend uniformly. maps (B,K,h,w); query, key (B,d,h,w);
    valid (B,h,w).
    """
    q, k = query.flatten(2), key.flatten(2)  # (B,d,n), n = h w
    logits = torch.einsum("bdi,bdj->bij", q, k).float() / q.shape[1] ** 0.5
    cells = valid.flatten(1)
    logits = torch.where(cells.unsqueeze(1), logits, -torch.inf)
    logits = torch.where((cells & cells.any(1, keepdim=True)).unsqueeze(2), logits, 0)
    attention = torch.softmax(logits, 2)  # (B,n,n)
    return maps + torch.einsum("bij,bkj->bki", attention, maps.flatten(2).to(attention.dtype)).view_as(maps)


def fused(first: Tensor, second: Tensor, share: float, *, over: Literal["image", "batch", "pixel"] = "image") -> Tensor:
    """Return share softmax(first / N) + (1 - share) softmax(second / N): (B,C,h,w) probabilities, fp32.

    N is a common scale of both logits (B,C,h,w): their root mean square over each image or over the batch, or, for
    `pixel`, the root of the sum of squares at each pixel.
    """
    first, second = first.float(), second.float()
    square = first**2 + second**2
    scale = {
        "image": lambda: square.mean((1, 2, 3), keepdim=True) / 2,
        "batch": lambda: square.mean() / 2,
        "pixel": lambda: square.sum(1, keepdim=True),
    }[over]()
    scale = (scale + 1e-8).sqrt()
    return share * torch.softmax(first / scale, 1) + (1 - share) * torch.softmax(second / scale, 1)


def sharpened(p: Tensor, temperature: float) -> Tensor:
    """Return the log of p^(1 / temperature), normalised over axis 1. p (B,C,h,w): probabilities.

    Pixel losses use the result as the teacher's logits.
    """
    return torch.log_softmax(p.clamp(min=torch.finfo(p.dtype).tiny).log() / temperature, 1)
