"""Sliding windows over an image, and the average of their predictions in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from fuzzyseg.data.sample import Size

TILE = (1024, 1024)
"""Height and width of tiles of images that are too large for one forward pass."""


class Cut(Protocol):
    """A tensor, or an image that is read by windows."""

    @property
    def shape(self) -> Any:
        """(B,C,H,W)."""

    @property
    def device(self) -> torch.device:
        """Device of its parts."""

    def __getitem__(self, key: Any) -> Tensor:
        """The part [..., y0:y1, x0:x1]."""


def tiles_of(size: Size, tile: Size = TILE) -> Iterator[tuple[int, int, int, int]]:
    """y0, x0, y1, x1 of tiles without overlap; the last ones end at the border."""
    for top in range(0, size[0], tile[0]):
        for left in range(0, size[1], tile[1]):
            yield top, left, min(top + tile[0], size[0]), min(left + tile[1], size[1])


def starts(length: int, window: int) -> list[int]:
    """First positions of windows along an axis: ceil(2/3 window) apart, the last moved back to end at the border."""
    stride = -(-2 * window // 3)
    return [*range(0, max(length - window, 0), stride), max(length - window, 0)]


def sweep(image: Tensor | Cut, window: Size, predict: Callable[[Tensor], Tensor]) -> Iterator[Tensor]:
    """Average the predictions of overlapping windows, weighting them equally, in bands of rows.

    image (B,Cin,H,W). predict: windows (B,Cin,h,w) -> (B,C,h,w); windows are never larger than the image. Yields
    (B,C,rows,W) from top to bottom, (B,C,H,W) together. Memory is that of one band as high as a window.
    """
    height, width = image.shape[-2:]
    tall, wide = min(window[0], height), min(window[1], width)
    tops, lefts = starts(height, tall), starts(width, wide)
    hits = torch.zeros(width, device=image.device)
    for left in lefts:
        hits[left : left + wide] += 1
    rows = torch.zeros(tall, device=image.device)  # number of windows, vertically, over each row of the strip
    strip: Tensor | None = None
    for top, following in zip(tops, [*tops[1:], height], strict=True):
        for left in lefts:
            seen = predict(image[..., top : top + tall, left : left + wide])
            if strip is None:
                strip = seen.new_zeros((*seen.shape[:2], tall, width))
            strip[..., left : left + wide] += seen
        rows += 1
        assert strip is not None
        done = following - top
        yield strip[:, :, :done] / (rows[:done, None] * hits)
        strip = torch.cat([strip[:, :, done:], torch.zeros_like(strip[:, :, :done])], 2)
        rows = torch.cat([rows[done:], torch.zeros_like(rows[:done])])
