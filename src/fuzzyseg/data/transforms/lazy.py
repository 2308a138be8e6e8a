"""Images and masks that are too large to decode whole. Only the part inside a crop is read."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fuzzyseg.data.sample import Box

_STRIP = 2**24  # number of mask pixels searched at once


@dataclass(frozen=True)
class Large:
    """An image (C,H,W) or mask (H,W) that remains in its file. read: function that reads a box as (h,w,C) or (h,w)."""

    shape: tuple[int, ...]
    read: Callable[[Box], NDArray[Any]]

    def part(self, box: Box) -> Tensor:
        """Read the box y0, x0, y1, x1 as (C,h,w) or (h,w), uint8 or float32. Raises DataError."""
        values = torch.from_numpy(np.ascontiguousarray(self.read(box)))
        return values.movedim(-1, 0) if values.dim() == 3 else values

    def whole(self) -> Tensor:
        """Read the whole image or mask."""
        return self.part((0, 0, self.shape[-2], self.shape[-1]))

    def around(
        self, box: tuple[float, float, float, float], size: tuple[int, int]
    ) -> tuple[Tensor, tuple[float, float, float, float]]:
        """Read the pixels that Pillow needs for `resize(size, box=box)`. Also returns the box relative to these pixels.

        size: (w, h). box: x0, y0, x1, y1. Bilinear weights extend one output pixel beyond the box. Pillow computes them
        from coordinates, so rounding may make them differ from those of the whole image.
        """
        ranges = []
        for axis, length in enumerate((self.shape[-1], self.shape[-2])):
            start, stop = box[axis], box[axis + 2]
            reach = max(1.0, (stop - start) / size[axis]) + 2
            ranges.append((max(0, math.floor(start - reach)), min(length, math.ceil(stop + reach))))
        (left, right), (top, bottom) = ranges
        return self.part((top, left, bottom, right)), (box[0] - left, box[1] - top, box[2] - left, box[3] - top)


def chosen_place(
    mask: Tensor | Large, rows: Tensor, columns: Tensor, label: int, choose: Callable[[int], int]
) -> tuple[int, int] | None:
    """Choose a pixel of mask[rows][:, columns] with a given label. Returns its row and column; None if there is none.

    choose(n): returns which of the n candidates, in row-major order, to use. rows, columns: in ascending order. A
    `Large` mask is read in strips.
    """
    height, width = mask.shape

    def matches(chunk: Tensor) -> Tensor:
        top, bottom = int(chunk[0]), int(chunk[-1]) + 1
        strip = mask.part((top, 0, bottom, width)) if isinstance(mask, Large) else mask[top:bottom]
        return strip[chunk - top][:, columns] == label

    step = max(1, _STRIP * len(rows) // (height * width))
    counts = torch.cat([matches(chunk).sum(1) for chunk in torch.split(rows, step)])
    if not counts.any():
        return None
    number = choose(int(counts.sum()))
    row = int(torch.searchsorted(counts.cumsum(0), number, right=True))
    column = matches(rows[row : row + 1])[0].nonzero()[number - int(counts[:row].sum())]
    return row, int(column)
