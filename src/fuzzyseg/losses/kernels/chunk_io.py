"""Where a chunk of logits is read from and where its gradient goes, in the order of the pixels of one image.

All give (C,P) in the precision of the computation, and take it back.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Source(Protocol):
    """Logits of all images at the size of the loss."""

    def read(self, image: int, start: int, stop: int) -> Tensor:
        """Pixels start to stop of an image, (C,stop-start); to be read only."""
        ...


class Sink(Protocol):
    """The gradient of the student's logits."""

    def open(self, image: int, start: int, stop: int) -> Tensor:
        """A place (C,stop-start) of any content to write the gradient of these pixels to."""
        ...

    def close(self, image: int, start: int, stop: int, written: Tensor) -> None:
        """The gradient stands in the place that `open` gave."""
        ...


def flat(logits: Tensor) -> Tensor:
    """(B,C,P) from (B,C,*spatial), (1,C,N) from (N,C); a view where strides allow it."""
    return logits.t().unsqueeze(0) if logits.dim() == 2 else logits.flatten(2)


def gradient_like(logits: Tensor) -> Tensor:
    """An empty tensor like the logits in an order of memory that `flat` gives a view of."""
    last = logits.dim() == 4 and logits.is_contiguous(memory_format=torch.channels_last)
    kind = torch.channels_last if last and not logits.is_contiguous() else torch.contiguous_format
    return torch.empty_like(logits, memory_format=kind)


class Direct:
    """Logits that have the size of the loss."""

    def __init__(self, logits: Tensor, dtype: torch.dtype) -> None:
        self.flat, self.dtype = flat(logits), dtype

    def read(self, image: int, start: int, stop: int) -> Tensor:
        """A view, or a copy where pixels do not lie side by side or the precision differs."""
        found = self.flat[image, :, start:stop].to(self.dtype)
        return found if found.stride(1) == 1 else found.contiguous()


class DirectSink:
    """A gradient of the size of the loss."""

    def __init__(self, grad: Tensor, dtype: torch.dtype) -> None:
        self.flat = flat(grad)
        self.in_place = self.flat.dtype == dtype and self.flat.stride(2) == 1
        self.buffer = self.flat.new_empty(0, dtype=dtype)

    def open(self, image: int, start: int, stop: int) -> Tensor:
        """The final place itself, or a buffer where it is of another precision or order."""
        place = self.flat[image, :, start:stop]
        if self.in_place:
            return place
        if self.buffer.shape != place.shape:
            self.buffer = self.buffer.new_empty(place.shape)
        return self.buffer

    def close(self, image: int, start: int, stop: int, written: Tensor) -> None:
        """Copied, if it is not there already."""
        if not self.in_place:
            self.flat[image, :, start:stop] = written


class Mixture:
    """Two sources that are read as one: `b` where the mask (B,*spatial), (N,) of logits (N,C), is True, else `a`."""

    def __init__(self, a: Source, b: Source, mask: Tensor) -> None:
        self.a, self.b, self.mask = a, b, mask.reshape(1 if mask.dim() == 1 else len(mask), -1)

    def read(self, image: int, start: int, stop: int) -> Tensor:
        """One of the two where the mask is of one kind, and then the other is not even computed."""
        mask = self.mask[image, start:stop]
        if mask.device.type == "cpu":  # elsewhere a look at the mask would wait
            if not bool(mask.any()):
                return self.a.read(image, start, stop)
            if bool(mask.all()):
                return self.b.read(image, start, stop)
        return torch.where(mask, self.b.read(image, start, stop), self.a.read(image, start, stop))
