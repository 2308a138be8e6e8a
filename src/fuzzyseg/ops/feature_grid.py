"""Cells of a feature map: what of the image each of them shows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def nearest_cells(values: Tensor, size: Sequence[int]) -> Tensor:
    """A map (B,H,W) at the cells of a feature map: the value nearest to each, (B,h,w), of the same type."""
    nearest = F.interpolate(values.unsqueeze(1).float(), size=tuple(size), mode="nearest")
    return nearest.squeeze(1).to(values.dtype)


def whole_cells(valid: Tensor, size: Sequence[int]) -> Tensor:
    """Cells (B,h,w) bool of a feature map all of whose pixels are valid, (B,H,W) bool."""
    return F.adaptive_avg_pool2d(valid.unsqueeze(1).float(), (size[0], size[1])).squeeze(1) > 1 - 1e-6


def meeting_cells(boxes: Tensor, size: tuple[int, int], grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """For each of the n = h w cells of the first of two crops the second's at the same place, and is there one? (B,n).

    boxes (B,2,4): y0,x0,y1,x1 of both; size (H,W) of a crop; grid (h,w), its cells. Exact where the crops lie a
    multiple of a cell apart; else it is the cell around the centre.
    """
    shift = boxes[:, 0, :2] - boxes[:, 1, :2]
    found = []
    for axis in (0, 1):
        apart = shift[:, axis : axis + 1] * (grid[axis] / size[axis])
        found.append((torch.arange(grid[axis], device=boxes.device) + 0.5 + apart).floor().long())
    y, x = found[0].unsqueeze(2), found[1].unsqueeze(1)
    inside = (y >= 0) & (y < grid[0]) & (x >= 0) & (x < grid[1])
    place = y.clamp(0, grid[0] - 1) * grid[1] + x.clamp(0, grid[1] - 1)
    return place.flatten(1), inside.flatten(1)
