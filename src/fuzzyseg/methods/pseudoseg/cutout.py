"""Cutout, which hides a random square of the image.

T. DeVries, G. Taylor, "Improved regularization of convolutional neural networks with cutout", 2017.
"""

import torch
from torch import Tensor

from fuzzyseg.ops.sample_rng import uniform


def square_masks(seeds: Tensor, size: tuple[int, int], half: int) -> Tensor:
    """Return masks (B,H,W) bool, True in a square of side 2 * half around a random pixel, cropped at the borders.

    seeds: (B,) int64, one per sample, on the CPU, like the masks.
    """
    height, width = size
    centre = uniform(seeds, (2,), purpose=4) * torch.tensor([height, width])
    top, left = (centre.floor() - half).unbind(1)
    y, x = torch.arange(height).unsqueeze(0), torch.arange(width).unsqueeze(0)
    rows = (y >= top[:, None]) & (y < top[:, None] + 2 * half)  # (B,H)
    columns = (x >= left[:, None]) & (x < left[:, None] + 2 * half)
    return rows.unsqueeze(2) & columns.unsqueeze(1)
