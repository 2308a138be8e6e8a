"""Box masks of French et al., "Semi-supervised semantic segmentation needs strong, varied perturbations"."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def published_sides(seed: int, boxes: int, area: tuple[float, float]) -> list[tuple[float, float, float, float]]:
    """Return (height, width, top, left) of each box; sides are fractions of the image, positions of the remainder."""
    numbers = torch.rand(boxes, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).tolist()
    result = []
    for u_share, u_side, u_top, u_left in numbers:
        share = (1 - u_share) * area[0] + u_share * area[1]  # per box: the range is not divided by their number
        y = share**u_side  # exp(U ln share)
        x = share / y
        result.append((y / math.sqrt(boxes), x / math.sqrt(boxes), u_top, u_left))
    return result


def published_mask(seed: int, size: tuple[int, int], boxes: int, area: tuple[float, float]) -> Tensor:
    """Return a mask (H,W) float that is 1 where an odd number of boxes overlap."""
    mask = torch.zeros(size)
    for y, x, u_top, u_left in published_sides(seed, boxes, area):
        h, w = round(y * size[0]), round(x * size[1])
        top, left = round((size[0] - h) * u_top), round((size[1] - w) * u_left)
        for row in range(top, top + h):
            for column in range(left, left + w):
                mask[row, column] = 1 - mask[row, column]
    return mask
