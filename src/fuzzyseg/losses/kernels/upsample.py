"""Logits at the network's stride, read as if they had been interpolated bilinearly: full-resolution logits never exist.

A band of rows is made at a time: the few low-resolution rows it needs are stretched along x, then pairs of them blended
along y, and the gradient goes the opposite way by products with the same weights, always in one order, so that it is
deterministic. Weights are those of torch.nn.functional.interpolate, in the same precision.
"""

from __future__ import annotations

from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

BLOCK = 128
"""Outputs whose gradient along x is taken back in one product, which has zeros where they do not reach."""


class Axis:
    """Linear interpolation from `old` to `new` points: new[i] = (1 - part[i]) old[low[i]] + part[i] old[high[i]]."""

    def __init__(self, old: int, new: int, *, align_corners: bool, dtype: torch.dtype, device: torch.device) -> None:
        # The step is rounded to the precision of the weights, product and difference are not: a fused multiply-add.
        share = (old - 1) / max(new - 1, 1) if align_corners else old / new
        step = torch.tensor(share, dtype=dtype).double()
        points = torch.arange(new, dtype=torch.float64)
        at = points * step if align_corners else ((points + 0.5) * step - 0.5).clamp(min=0)
        at = at.to(dtype)
        low = at.long().clamp(max=old - 1)
        high = (low + 1).clamp(max=old - 1)
        part = (at - low).clamp(0, 1)
        self.lows: list[int] = low.tolist()
        self.highs: list[int] = high.tolist()
        self.low, self.high, self.part = low.to(device), high.to(device), part.to(device)

    def reach(self, start: int, stop: int) -> tuple[int, int]:
        """The old points, first and one past the last, that new ones start to stop are made of."""
        return self.lows[start], self.highs[stop - 1] + 1

    def weights(self, start: int, stop: int) -> Tensor:
        """(stop-start, reach) weights of these new points over the old ones that they are made of."""
        first, last = self.reach(start, stop)
        part = self.part[start:stop].unsqueeze(1)
        found = part.new_zeros((stop - start, last - first))
        found.scatter_add_(1, self.low[start:stop].unsqueeze(1) - first, 1 - part)
        return found.scatter_add_(1, self.high[start:stop].unsqueeze(1) - first, part)


class Piece(NamedTuple):
    """New points start to stop, the old ones first to last they are made of, and weights (stop-start,last-first)."""

    start: int
    stop: int
    first: int
    last: int
    weights: Tensor


class Grid:
    """Bilinear interpolation from (h,w) to (H,W), band by band."""

    def __init__(
        self,
        old: tuple[int, int],
        new: tuple[int, int],
        *,
        align_corners: bool,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.y, self.x = (
            Axis(a, b, align_corners=align_corners, dtype=dtype, device=device) for a, b in zip(old, new, strict=True)
        )
        self.width = new[1]
        starts = [(start, min(start + BLOCK, new[1])) for start in range(0, new[1], BLOCK)]
        self.pieces = [Piece(a, b, *self.x.reach(a, b), self.x.weights(a, b)) for a, b in starts]

    def raised(self, logits: Tensor, top: int, bottom: int) -> Tensor:
        """Rows top to bottom, (C,rows,W), of one image's logits (C,h,w)."""
        first, last = self.y.reach(top, bottom)
        rows = logits[:, first:last].to(self.x.part.dtype)
        wide = rows.index_select(2, self.x.low)
        wide.addcmul_(rows.index_select(2, self.x.high).sub_(wide), self.x.part)
        found = wide.new_empty((len(wide), bottom - top, self.width))
        for (low, high), group in groupby(range(top, bottom), key=lambda y: (self.y.lows[y], self.y.highs[y])):
            ys = list(group)
            part = self.y.part[ys[0] : ys[-1] + 1].view(1, -1, 1)
            base = wide[:, low - first].unsqueeze(1)
            step = wide[:, high - first].unsqueeze(1) - base
            torch.addcmul(base, step, part, out=found[:, ys[0] - top : ys[-1] + 1 - top])
        return found

    def lowered(self, grad: Tensor, top: int, bottom: int, into: Tensor) -> None:
        """The adjoint of `raised`: adds the gradient (C,rows,W) of these rows to that of the logits, `into` (C,h,w)."""
        first, last = self.y.reach(top, bottom)
        wide = _product(self.y.weights(top, bottom).t(), grad)  # (C,last-first,W)
        for piece in self.pieces:
            part = _product(wide[:, :, piece.start : piece.stop], piece.weights)
            into[:, first:last, piece.first : piece.last] += part


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b, in fp64 where the device would round fp32 products to fewer digits."""
    if a.is_cuda and a.dtype == torch.float32 and torch.get_float32_matmul_precision() != "highest":
        return torch.matmul(a.double(), b.double()).to(a.dtype)
    return torch.matmul(a, b)


class Raised:
    """A source of logits (B,C,h,w) that are smaller, or larger, than the loss."""

    def __init__(self, logits: Tensor, grid: Grid) -> None:
        self.logits, self.grid = logits, grid

    def read(self, image: int, start: int, stop: int) -> Tensor:
        """start and stop stand at ends of rows."""
        width = self.grid.width
        return self.grid.raised(self.logits[image], start // width, stop // width).flatten(1)


class RaisedSink:
    """The gradient of logits (B,C,h,w), summed in the precision of the computation."""

    def __init__(self, grad: Tensor, grid: Grid) -> None:
        self.grad, self.grid = grad, grid
        self.sums = grad.new_empty(0, dtype=grid.x.part.dtype)
        self.buffer = self.sums

    def open(self, image: int, start: int, stop: int) -> Tensor:
        """A buffer; images come one after the other, each from its first pixel on."""
        if start == 0:
            self.sums = self.sums.new_zeros(self.grad.shape[1:])
        if self.buffer.shape != (self.grad.shape[1], stop - start):
            self.buffer = self.sums.new_empty((self.grad.shape[1], stop - start))
        return self.buffer

    def close(self, image: int, start: int, stop: int, written: Tensor) -> None:
        """Taken back to the stride; with the last pixel the image is done."""
        width = self.grid.width
        self.grid.lowered(written.view(len(written), -1, width), start // width, stop // width, self.sums)
        if stop // width == len(self.grid.y.lows):
            self.grad[image] = self.sums
