"""Sliding windows over an image, and the average of their predictions in bounded memory."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from fuzzyseg.data.sample import Box, Size

TILE = (1024, 1024)
"""Height and width of tiles of images that are too large for one forward pass."""


def tiles_of(size: Size, tile: Size = TILE) -> Iterator[Box]:
    """y0, x0, y1, x1 of tiles without overlap; the last ones end at the border."""
    for top in range(0, size[0], tile[0]):
        for left in range(0, size[1], tile[1]):
            yield top, left, min(top + tile[0], size[0]), min(left + tile[1], size[1])


def starts(length: int, window: int) -> list[int]:
    """First positions of windows along an axis: ceil(2/3 window) apart, the last moved back to end at the border."""
    stride = -(-2 * window // 3)
    return [*range(0, max(length - window, 0), stride), max(length - window, 0)]


def sweep(size: Size, window: Size, predict: Callable[[Box], Tensor]) -> Iterator[Tensor]:
    """Average the predictions of overlapping windows, weighting them equally, in bands of rows.

    size: (H, W) of the image. predict: prediction (B,C,h,w) for the window y0, x0, y1, x1, which is never larger than
    the image. Yields (B,C,rows,W) from top to bottom, (B,C,H,W) together. Memory is that of one band as high as a
    window.
    """
    height, width = size
    tall, wide = min(window[0], height), min(window[1], width)
    tops, lefts = starts(height, tall), starts(width, wide)
    hits, rows = torch.zeros(width), torch.zeros(tall)  # number of windows over each column, and row of the strip
    for left in lefts:
        hits[left : left + wide] += 1
    strip: Tensor | None = None
    for top, following in zip(tops, [*tops[1:], height], strict=True):
        for left in lefts:
            seen = predict((top, left, top + tall, left + wide))
            if strip is None:
                strip = seen.new_zeros((*seen.shape[:2], tall, width))
                hits, rows = hits.to(seen.device), rows.to(seen.device)
            strip[..., left : left + wide] += seen
        rows += 1
        assert strip is not None
        done = following - top
        yield strip[:, :, :done] / (rows[:done, None] * hits)
        strip = torch.cat([strip[:, :, done:], torch.zeros_like(strip[:, :, :done])], 2)
        rows = torch.cat([rows[done:], torch.zeros_like(rows[:done])])
