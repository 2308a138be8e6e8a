"""Sliding windows over an image, with predictions averaged in bounded memory."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from fuzzyseg.data.sample import Box, Size

TILE = (1024, 1024)
"""Height and width of the tiles of images too large for one forward pass."""


def tiles_of(size: Size, tile: Size = TILE) -> Iterator[Box]:
    """Yield non-overlapping tiles y0, x0, y1, x1; the last ones end at the border."""
    for top in range(0, size[0], tile[0]):
        for left in range(0, size[1], tile[1]):
            yield top, left, min(top + tile[0], size[0]), min(left + tile[1], size[1])


MAX_VALUES = 2**24
"""Maximum number of values, over all classes, of the rows that `average_windows` yields at once."""


def starts(length: int, window: int, multiple: int = 1) -> list[int]:
    """Return window positions along an axis, ceil(2/3 window) apart; the last window is moved back to the border.

    multiple: round the step down, and the last position up, to a multiple of this number; the last window may then
    extend beyond the border and must be cropped. Ignored if larger than the step.
    """
    stride, last = -(-2 * window // 3), max(length - window, 0)
    if 1 < multiple <= stride:
        stride, last = stride // multiple * multiple, -(-last // multiple) * multiple
    return [*range(0, last, stride), last]


def ramp(length: int, start: int, end: int, overlap: int) -> Tensor:
    """Return the weights (end - start,) of a window's pixels along an axis, which ramp up where windows overlap.

    They are nearly 0 in the outer quarter of the overlap and 1 in the inner quarter. At the border of the image, which
    no other window covers better, they are 1.
    """
    place = torch.arange(start, end) + 0.5
    sides = [side for side, inner in ((place - start, start > 0), (end - place, end < length)) if inner]
    weight = torch.ones(end - start)
    for side in sides:
        weight = weight.minimum((2 * side / max(overlap, 1) - 0.5).clamp(1e-6, 1))
    return weight


def average_windows(
    size: Size, window: Size, predict: Callable[[Box], Tensor], blend: int | None = None
) -> Iterator[Tensor]:
    """Average the predictions of overlapping windows, yielding bands of rows.

    size: (H, W) of the image. predict: returns the prediction (B,C,h,w) for the window y0, x0, y1, x1, which is never
    larger than the image. blend: weight the pixels of a window by `ramp` along both axes, and start windows at
    multiples of this number, the network's divisor, so that feature maps are aligned with those of the whole image;
    None: equal weights. Yields (B,C,rows,W) from top to bottom, together (B,C,H,W). Memory: one band of window height.
    """
    height, width = size
    tall, wide = min(window[0], height), min(window[1], width)
    tops, lefts = (starts(side, span, blend or 1) for side, span in ((height, tall), (width, wide)))
    down = [_weights(height, top, tall, tops, blend) for top in tops]
    across = [_weights(width, left, wide, lefts, blend) for left in lefts]
    hits, rows = torch.zeros(width), torch.zeros(tall)  # sum of the weights at each column, and row of the strip
    for left, weight in zip(lefts, across, strict=True):
        hits[left : left + wide] += weight
    strip: Tensor | None = None
    for top, following, vertical in zip(tops, [*tops[1:], height], down, strict=True):
        for left, horizontal in zip(lefts, across, strict=True):
            scores = predict((top, left, top + len(vertical), left + len(horizontal)))
            if strip is None:
                strip = scores.new_zeros((*scores.shape[:2], tall, width))
                hits, rows = hits.to(scores.device), rows.to(scores.device)
            weighted = scores if blend is None else scores * (vertical[:, None] * horizontal).to(scores.device)
            strip[..., : len(vertical), left : left + wide] += weighted
        rows[: len(vertical)] += vertical.to(rows.device)
        assert strip is not None
        done = following - top
        step = max(1, MAX_VALUES // (strip.shape[1] * width))
        for start in range(0, done, step):
            part = slice(start, min(start + step, done))
            yield strip[:, :, part] / (rows[part, None] * hits)
        for sums, axis in ((strip, 2), (rows, 0)):  # move up the rows that the next windows overlap
            rest = sums.narrow(axis, done, tall - done).clone()
            sums.zero_().narrow(axis, 0, tall - done).copy_(rest)


def _weights(length: int, start: int, window: int, window_starts: list[int], blend: int | None) -> Tensor:
    end = min(start + window, length)
    if blend is None:
        return torch.ones(end - start)
    return ramp(length, start, end, window - (window_starts[1] if len(window_starts) > 1 else window))
