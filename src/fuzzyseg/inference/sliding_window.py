"""Overlapping windows over an image, and their average without ever holding it all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from fuzzyseg.data.sample import Size

TILE = (1024, 1024)
"""Height and width of the tiles of images that are too large for one pass."""


class Cut(Protocol):
    """What parts can be cut out of: a tensor, or an image that is read by windows."""

    @property
    def shape(self) -> Any:
        """(B,C,H,W)."""

    @property
    def device(self) -> torch.device:
        """Where its parts are."""

    def __getitem__(self, key: Any) -> Tensor:
        """The part [..., y0:y1, x0:x1]."""


def tiles_of(size: Size, tile: Size = TILE) -> Iterator[tuple[int, int, int, int]]:
    """y0, x0, y1, x1 of tiles that lie side by side; the last ones end where the image does."""
    for top in range(0, size[0], tile[0]):
        for left in range(0, size[1], tile[1]):
            yield top, left, min(top + tile[0], size[0]), min(left + tile[1], size[1])


def starts(length: int, window: int) -> list[int]:
    """Where windows begin along an axis: ceil(2/3 window) apart, the last moved back to end where the axis does."""
    stride = -(-2 * window // 3)
    return [*range(0, max(length - window, 0), stride), max(length - window, 0)]


def sweep(image: Tensor | Cut, window: Size, predict: Callable[[Tensor], Tensor]) -> Iterator[Tensor]:
    """Predictions of overlapping windows, averaged by the number of windows that see a pixel, in bands of rows.

    image (B,Cin,H,W); predict makes (B,C,h,w) of windows (B,Cin,h,w), which are never larger than the image. Yields
    (B,C,rows,W) from top to bottom; together they are (B,C,H,W). No more than one window's height is held, so a map of
    an image of any height costs the memory of a strip.
    """
    height, width = image.shape[-2:]
    tall, wide = min(window[0], height), min(window[1], width)
    tops, lefts = starts(height, tall), starts(width, wide)
    hits = torch.zeros(width, device=image.device)
    for left in lefts:
        hits[left : left + wide] += 1
    rows = torch.zeros(tall, device=image.device)  # windows above one another that see a row of the strip
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
