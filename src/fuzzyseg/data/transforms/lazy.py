"""Images and masks that are too large to be decoded at once: the part that a crop shows, resampled as the whole is."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fuzzyseg.data.io.tiff import Box

_SUPPORT = {Image.Resampling.NEAREST: 0.0, Image.Resampling.BILINEAR: 1.0}
"""How far Pillow's filters look beyond a box, in pixels of the larger of both scales."""

_SLACK = 2  # pixels more on each side: Pillow holds a box in 32 bits, which round

_AT_ONCE = 2**22  # values that are laid out for Pillow
_STRIP = 2**24  # pixels of a mask that are searched


@dataclass(frozen=True)
class Large:
    """An image (C,H,W) or a mask (H,W) that stays in its file. read: the part of a box, (h,w,C) or (h,w)."""

    shape: tuple[int, ...]
    read: Callable[[Box], NDArray[Any]]

    def part(self, box: Box) -> Tensor:
        """(C,h,w) or (h,w) of y0, x0, y1, x1, uint8 or float32, as of the whole. Raises DataError."""
        values = torch.from_numpy(np.ascontiguousarray(self.read(box)))
        return values.movedim(-1, 0) if values.dim() == 3 else values

    def whole(self) -> Tensor:
        """All of it, for those who show all of it."""
        return self.part((0, 0, self.shape[-2], self.shape[-1]))


def resampled(
    large: Large, size: tuple[int, int], how: Image.Resampling, box: tuple[float, float, float, float]
) -> Tensor:
    """What Pillow's `resize(size, how, box)` makes of the whole, bit for bit; size: (w, h), box: x0, y0, x1, y1.

    Pillow computes the weights of a pixel from its place in the image. In an image cut to the part they would differ in
    the last bits, so lines of the whole length are given to it, empty where nothing is looked at; one direction
    after the other, in the order in which Pillow 13 takes them, which was found by trying. Another order rounds
    otherwise: with a Pillow that has another rule a pixel of a tall image may differ by its last bit.
    """
    height, width = large.shape[-2:]
    x0, x1 = _reached(box[0], box[2], size[0], width, how)
    y0, y1 = _reached(box[1], box[3], size[1], height, how)
    part = large.part((y0, x0, y1, x1))
    bands = []
    for band in (part if part.dim() == 3 else part[None]).numpy():
        for axis in (0, 1) if height - size[1] > 2 * max(0, width - size[0]) else (1, 0):
            first, length = ((y0, height), (x0, width))[axis]
            band = _along(band, axis, first, length, size[1 - axis], how, (box[1 - axis], box[3 - axis]))
        bands.append(torch.from_numpy(band))
    if part.dim() == 2:
        return bands[0]
    # in memory as `Window.resample` leaves them: sums over bands may depend on it
    together = len(bands) == 3 and part.dtype == torch.uint8
    return torch.stack(bands, -1).movedim(-1, 0) if together else torch.stack(bands)


def _reached(start: float, stop: float, count: int, length: int, how: Image.Resampling) -> tuple[int, int]:
    """The pixels that `count` pixels made from `start` to `stop` of a line of `length` depend on, and a few more."""
    reach = _SUPPORT[how] * max(1.0, (stop - start) / count) + _SLACK
    return max(0, math.floor(start - reach)), min(length, math.ceil(stop + reach))


def _along(
    part: NDArray[Any],
    axis: int,
    first: int,
    length: int,
    count: int,
    how: Image.Resampling,
    ends: tuple[float, float],
) -> NDArray[Any]:
    """(h,w) resized to `count` along an axis. The part begins at `first` of `length`; ends: of what is resized."""
    lines = part.shape[1 - axis]
    step = max(1, _AT_ONCE // length)
    pieces = []
    for start in range(0, lines, step):
        some = min(step, lines - start)
        piece = part[start : start + some] if axis == 1 else part[:, start : start + some]
        whole = np.zeros((some, length) if axis == 1 else (length, some), part.dtype)
        if axis == 1:
            whole[:, first : first + part.shape[1]] = piece
            size, box = (count, some), (ends[0], 0.0, ends[1], float(some))
        else:
            whole[first : first + part.shape[0]] = piece
            size, box = (some, count), (0.0, ends[0], float(some), ends[1])
        pieces.append(np.array(Image.fromarray(whole).resize(size, how, box)))
    return np.concatenate(pieces, 1 - axis)


def chosen_place(
    mask: Large, rows: Tensor, columns: Tensor, label: int, choose: Callable[[int], int]
) -> tuple[int, int] | None:
    """Of the places in mask[rows][:, columns] that hold a label, row by row, that of the number choose(how many).

    None: there is none, and nothing is chosen. rows, columns: ascending. The mask is searched strip by strip.
    """
    height, width = mask.shape
    step = max(1, _STRIP * len(rows) // (height * width))
    starts = range(0, len(rows), step)

    def found(start: int) -> Tensor:
        some = rows[start : start + step]
        top = int(some[0])
        strip = mask.part((top, 0, int(some[-1]) + 1, width))
        return (strip[some - top][:, columns] == label).nonzero()

    counts = [len(found(start)) for start in starts]
    if not any(counts):
        return None
    number = choose(sum(counts))
    for start, count in zip(starts, counts, strict=True):
        if number < count:
            row, column = found(start)[number].tolist()
            return start + row, column
        number -= count
    raise AssertionError("a number beyond those that there are was chosen")
