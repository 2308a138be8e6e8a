"""Chunk-wise access to logits and their gradient, with bilinear upsampling if the sizes differ.

Chunks are (C,P) tensors in the compute precision: P pixels of one image in row-major order.

Logits whose size differs from the loss's are upsampled in bands of rows, first along x, then along y, so the
full-resolution logits are never all in memory. The gradient is the adjoint, computed by matrix products with the same
weights in a fixed order, and is therefore deterministic. The weights equal those of `torch.nn.functional.interpolate`
in the same precision.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor


def flat(logits: Tensor) -> Tensor:
    """Flatten (B,C,*spatial) to (B,C,P), or (N,C) to (1,C,N); returns a view if the strides permit it."""
    return logits.t().unsqueeze(0) if logits.dim() == 2 else logits.flatten(2)


def gradient_like(logits: Tensor) -> Tensor:
    """Return an uninitialised tensor like the logits, in a memory format for which `flat` returns a view."""
    last = logits.dim() == 4 and logits.is_contiguous(memory_format=torch.channels_last)
    kind = torch.channels_last if last and not logits.is_contiguous() else torch.contiguous_format
    return torch.empty_like(logits, memory_format=kind)


class DirectSource:
    """Source of logits that already have the size of the loss."""

    def __init__(self, logits: Tensor, dtype: torch.dtype) -> None:
        self.flat, self.dtype = flat(logits), dtype

    def read(self, image: int, start: int, stop: int) -> Tensor:
        """Return a view, or a copy if the pixels are not contiguous or the precision differs."""
        values = self.flat[image, :, start:stop].to(self.dtype)
        return values if values.stride(1) == 1 else values.contiguous()


class DirectSink:
    """Sink for the gradient of logits that already have the size of the loss."""

    def __init__(self, grad: Tensor, dtype: torch.dtype) -> None:
        self.flat = flat(grad)
        self.in_place = self.flat.dtype == dtype and self.flat.stride(2) == 1
        self.buffer = self.flat.new_empty(0, dtype=dtype)

    def open(self, image: int, start: int, stop: int) -> Tensor:
        """Return a view of the gradient, or a buffer if the precision or memory order differs."""
        place = self.flat[image, :, start:stop]
        if self.in_place:
            return place
        if self.buffer.shape != place.shape:
            self.buffer = self.buffer.new_empty(place.shape)
        return self.buffer

    def close(self, image: int, start: int, stop: int, written: Tensor) -> None:
        """Copy the buffer, if one was used, to the gradient."""
        if not self.in_place:
            self.flat[image, :, start:stop] = written


class MixedSource:
    """Source that reads `b` where mask is True, otherwise `a`. mask: (B,*spatial), or (N,) for logits (N,C)."""

    def __init__(self, a: "Source", b: "Source", mask: Tensor) -> None:
        self.a, self.b, self.mask = a, b, mask.reshape(1 if mask.dim() == 1 else len(mask), -1)

    def read(self, image: int, start: int, stop: int) -> Tensor:
        """Read both sources; on the CPU, read only those that the chunk needs."""
        mask = self.mask[image, start:stop]
        if mask.device.type == "cpu":  # on other devices, reading the mask would synchronise
            if not bool(mask.any()):
                return self.a.read(image, start, stop)
            if bool(mask.all()):
                return self.b.read(image, start, stop)
        return torch.where(mask, self.b.read(image, start, stop), self.a.read(image, start, stop))


BLOCK = 128
"""Columns per matrix product of the gradient along x; the weights of a wider product would be mostly zeros."""


class Axis:
    """Linear interpolation from `old` to `new` points: new[i] = (1 - part[i]) old[low[i]] + part[i] old[high[i]]."""

    def __init__(self, old: int, new: int, *, align_corners: bool, dtype: torch.dtype, device: torch.device) -> None:
        # As with a fused multiply-add, only the step is rounded to the precision of the weights.
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
        # A blocking copy to a GPU would synchronise.
        self.low, self.high, self.part = (values.to(device, non_blocking=True) for values in (low, high, part))

    def reach(self, start: int, stop: int) -> tuple[int, int]:
        """Return the range (first, last + 1) of the old points on which new points start to stop - 1 depend."""
        return self.lows[start], self.highs[stop - 1] + 1

    def weights(self, start: int, stop: int) -> Tensor:
        """Return the interpolation matrix (stop-start,reach) for these new points."""
        first, last = self.reach(start, stop)
        part = self.part[start:stop].unsqueeze(1)
        matrix = part.new_zeros((stop - start, last - first))
        matrix.scatter_add_(1, self.low[start:stop].unsqueeze(1) - first, 1 - part)
        return matrix.scatter_add_(1, self.high[start:stop].unsqueeze(1) - first, part)


class Piece(NamedTuple):
    """New points [start, stop), old points [first, last), and the weights (stop-start,last-first) between them."""

    start: int
    stop: int
    first: int
    last: int
    weights: Tensor


class Grid:
    """Bilinear interpolation from (h,w) to (H,W) in bands of rows."""

    def __init__(self, old: Sequence[int], new: Sequence[int], **options: Any) -> None:
        """options: keyword arguments of `Axis`."""
        self.y, self.x = (Axis(a, b, **options) for a, b in zip(old, new, strict=True))
        self.width = new[1]
        starts = [(start, min(start + BLOCK, new[1])) for start in range(0, new[1], BLOCK)]
        self.pieces = [Piece(a, b, *self.x.reach(a, b), self.x.weights(a, b)) for a, b in starts]

    def upsample(self, logits: Tensor, top: int, bottom: int) -> Tensor:
        """Return rows top to bottom - 1, (C,rows,W), of an image's upsampled logits (C,h,w)."""
        first, last = self.y.reach(top, bottom)
        rows = logits[:, first:last].to(self.x.part.dtype)
        wide = rows.index_select(2, self.x.low)
        wide.addcmul_(rows.index_select(2, self.x.high).sub_(wide), self.x.part)
        result = wide.new_empty((len(wide), bottom - top, self.width))
        for (low, high), group in groupby(range(top, bottom), key=lambda y: (self.y.lows[y], self.y.highs[y])):
            ys = list(group)
            part = self.y.part[ys[0] : ys[-1] + 1].view(1, -1, 1)
            base = wide[:, low - first].unsqueeze(1)
            step = wide[:, high - first].unsqueeze(1) - base
            torch.addcmul(base, step, part, out=result[:, ys[0] - top : ys[-1] + 1 - top])
        return result

    def upsample_adjoint(self, grad: Tensor, top: int, bottom: int, into: Tensor) -> None:
        """Apply the adjoint of `upsample`: add the gradient (C,rows,W) of these rows to `into` (C,h,w)."""
        first, last = self.y.reach(top, bottom)
        wide = _product(self.y.weights(top, bottom).t(), grad)  # (C,last-first,W)
        for piece in self.pieces:
            part = _product(wide[:, :, piece.start : piece.stop], piece.weights)
            into[:, first:last, piece.first : piece.last] += part


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Return a @ b, computed in fp64 if the device would use TF32."""
    if a.is_cuda and a.dtype == torch.float32 and torch.get_float32_matmul_precision() != "highest":
        return torch.matmul(a.double(), b.double()).to(a.dtype)
    return torch.matmul(a, b)


class ResizedSource:
    """Source of logits (B,C,h,w) that are interpolated to the loss's resolution as they are read."""

    def __init__(self, logits: Tensor, grid: Grid) -> None:
        self.logits, self.grid = logits, grid

    def read(self, image: int, start: int, stop: int) -> Tensor:
        """Return upsampled pixels; start and stop must be at row boundaries."""
        width = self.grid.width
        return self.grid.upsample(self.logits[image], start // width, stop // width).flatten(1)


class ResizedSink:
    """Sink for the gradient of resized logits (B,C,h,w), which is summed in the compute precision."""

    def __init__(self, grad: Tensor, grid: Grid) -> None:
        self.grad, self.grid = grad, grid
        self.sums = grad.new_empty(0, dtype=grid.x.part.dtype)
        self.buffer = self.sums

    def open(self, image: int, start: int, stop: int) -> Tensor:
        """Return a buffer for pixels start to stop - 1. Must be called in order of image, then of pixel."""
        if start == 0:
            self.sums = self.sums.new_zeros(self.grad.shape[1:])
        if self.buffer.shape != (self.grad.shape[1], stop - start):
            self.buffer = self.sums.new_empty((self.grad.shape[1], stop - start))
        return self.buffer

    def close(self, image: int, start: int, stop: int, written: Tensor) -> None:
        """Add the adjoint of the interpolation; after an image's last pixel, store the sum."""
        width = self.grid.width
        self.grid.upsample_adjoint(written.view(len(written), -1, width), start // width, stop // width, self.sums)
        if stop // width == len(self.grid.y.lows):
            self.grad[image] = self.sums


Source = DirectSource | ResizedSource | MixedSource
"""Provides logits at the size of the loss: `read(image, start, stop)` returns read-only pixels (C,stop-start)."""

Sink = DirectSink | ResizedSink
"""Stores the gradient of the student's logits.

`open(image, start, stop)` returns an uninitialised buffer (C,stop-start); `close(..., buffer)` stores it once
filled."""
