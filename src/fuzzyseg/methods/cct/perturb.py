"""Random perturbations of a feature map (B,D,h,w), using torch's global generator (Y. Ouali et al., CVPR 2020)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from fuzzyseg.ops.resize import nearest_cells


def feature_noise(features: Tensor, limit: float) -> Tensor:
    """Apply F-Noise: multiply by 1 + n, n uniform in [-limit, limit] per channel and position, shared by all images."""
    return features * (1 + torch.empty_like(features[:1]).uniform_(-limit, limit))


def feature_drop(features: Tensor, low: float, high: float) -> Tensor:
    """Apply F-Drop: zero the positions whose channel mean is at least u times the image's maximum.

    u is uniform in [low, high] and the same for all images.
    """
    activity = features.mean(1, keepdim=True)  # (B,1,h,w)
    u = low + (high - low) * torch.rand((), device=features.device)
    return features * (activity < u * activity.amax((2, 3), keepdim=True))


def foreground(logits: Tensor, background: int, cells: tuple[int, int]) -> Tensor:
    """Return where a non-background class is predicted: (B,*cells) bool. logits (B,C,h,w); cells: output size."""
    return nearest_cells(logits.argmax(1) != background, cells)


def regions(mask: Tensor, rounds: int = 12) -> Tensor:
    """Label connected components (8-connected) of mask (B,H,W) bool: (B,H,W) int64, 0 where mask is False.

    A region's label is 1 + its largest index y * W + x. Each round takes the maximum label of the neighbours, writes it
    to the position that the current label points to, and reads that position's label (pointer jumping), so labels
    spread far in few rounds. A winding region that needs more than `rounds` rounds stays split.
    """
    batch, height, width = mask.shape
    place = torch.arange(1, height * width + 1, device=mask.device).view(1, height, width)
    number = torch.where(mask, place, 0)
    for _ in range(rounds):
        # fp32 is exact for integers up to 2^24, enough for 4096 x 4096 positions
        near = F.max_pool2d(number.float().unsqueeze(1), 3, 1, 1).squeeze(1).long()
        largest, labels = torch.where(mask, near, 0).flatten(1), number.flatten(1)
        updated = torch.cat([labels.new_zeros(batch, 1), labels], 1).scatter_reduce(1, labels, largest, "amax")
        updated[:, 0] = 0  # the entry for positions outside all regions
        largest = torch.maximum(largest, updated.gather(1, labels))
        number = updated.gather(1, largest).maximum(largest).view_as(number)
    return number


def boxes_within(number: Tensor, share: float) -> Tensor:
    """Return masks (B,H,W) bool, True in one box per region, placed randomly within the region's bounding box.

    number: result of `regions`. Along each axis the box is int(share * d) long, where d is the distance between the
    region's first and last position; regions too small for a box get none. Uses torch's global generator.
    """
    batch, height, width = number.shape
    cells = height * width + 1
    index = number.flatten(1)
    bounds = []
    for axis, length in ((1, height), (2, width)):
        shape = [1, 1, 1]
        shape[axis] = length
        place = torch.arange(length, device=number.device).view(shape).expand(number.shape).flatten(1)
        low = torch.full((batch, cells), length, device=number.device).scatter_reduce(1, index, place, "amin")
        high = torch.full((batch, cells), -1, device=number.device).scatter_reduce(1, index, place, "amax")
        extent = (high - low).clamp(min=0)
        side = (share * extent).long()
        start = low + (torch.rand(batch, cells, device=number.device) * (extent - side + 2)).long()
        bounds.append((start, side))
    (top, tall), (left, wide) = bounds
    non_empty = (tall > 0) & (wide > 0)
    non_empty[:, 0] = False
    # Difference array: corners of +1 and -1 whose double cumulative sum is the number of boxes at a position
    corners = number.new_zeros(batch, (height + 1) * (width + 1))
    for y, x, sign in ((top, left, 1), (top + tall, left, -1), (top, left + wide, -1), (top + tall, left + wide, 1)):
        corner = torch.where(non_empty, y * (width + 1) + x, 0)
        corners.scatter_add_(1, corner, torch.where(non_empty, sign, 0))
    covered = corners.view(batch, height + 1, width + 1).cumsum(1).cumsum(2)
    return covered[:, :height, :width] > 0
