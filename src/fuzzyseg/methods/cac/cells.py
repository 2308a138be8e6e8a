"""Matching and sampling of the feature-map positions of two overlapping crops."""

import torch
from torch import Tensor


def meeting_cells(boxes: Tensor, size: tuple[int, int], grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return the index of each first-crop position in the second crop, and whether it exists: (B,n) each, n = h w.

    boxes (B,2,4): y0,x0,y1,x1 of both crops; size: (H,W) of a crop; grid: (h,w). The match is exact if the crops'
    offset is a multiple of the distance between positions; otherwise it is the position whose area contains the centre.
    """
    shift = boxes[:, 0, :2] - boxes[:, 1, :2]
    indices = []
    for axis in (0, 1):
        offset = shift[:, axis : axis + 1] * (grid[axis] / size[axis])
        indices.append((torch.arange(grid[axis], device=boxes.device) + 0.5 + offset).floor().long())
    y, x = indices[0].unsqueeze(2), indices[1].unsqueeze(1)
    inside = (y >= 0) & (y < grid[0]) & (x >= 0) & (x < grid[1])
    place = y.clamp(0, grid[0] - 1) * grid[1] + x.clamp(0, grid[1] - 1)
    return place.flatten(1), inside.flatten(1)


def seeded_places(seeds: Tensor, places: int, count: int) -> Tensor:
    """Sample `count` of `places` positions per seed without replacement, or all if there are fewer: (B,count) int64.

    seeds: (B,) int64 on the CPU, like the result, which depends only on them.
    """
    drawn = [torch.randperm(places, generator=torch.Generator().manual_seed(seed)) for seed in seeds.tolist()]
    return torch.stack(drawn)[:, :count]
