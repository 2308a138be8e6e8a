"""One geometry, then colour once or twice: how a decoded image becomes the views of a sample.

All draws come from one generator that is seeded by the sample, in a fixed order. Only the part of the image that the
crop shows is resampled. Padding is 0 after normalisation (the mean colour), False in `valid`, and 255 in the mask.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fuzzyseg.data.colour import Colours
from fuzzyseg.data.items import VOID
from fuzzyseg.data.views import CropPair, View, WeakStrong

Size = tuple[int, int]


@dataclass(frozen=True)
class Geometry:
    """crop: (H, W) of the views. scale: range of the random scale. flip, vertical_flip: probabilities."""

    crop: Size
    scale: tuple[float, float] = (0.5, 2.0)
    flip: float = 0.5
    vertical_flip: float = 0.0

    def __post_init__(self) -> None:
        """Raises ValueError for sizes and scales that no image can have."""
        if min(self.crop) < 1:
            raise ValueError(f"train.crop: found {self.crop}; expected height and width of at least 1")
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"augment.scale: found {self.scale}; expected two factors above 0, the smaller one first")


@dataclass(frozen=True)
class Window:
    """A crop of the scaled image: its top left corner there (negative: padding before it), its size, its flips."""

    scaled: Size
    top: int
    left: int
    size: Size
    flip: bool
    vertical_flip: bool

    @property
    def visible(self) -> tuple[int, int, int, int]:
        """y0, x0, y1, x1 of the part of the crop that shows the image, in the crop's own coordinates."""
        y0, x0 = max(0, -self.top), max(0, -self.left)
        y1, x1 = min(self.size[0], self.scaled[0] - self.top), min(self.size[1], self.scaled[1] - self.left)
        return y0, x0, y1, x1

    @property
    def box(self) -> tuple[int, int, int, int]:
        """y0, x0, y1, x1 of the crop in the scaled image, before flipping."""
        return self.top, self.left, self.top + self.size[0], self.left + self.size[1]

    def resample(self, array: Tensor, how: Image.Resampling) -> Tensor:
        """The visible part of `array` (C,H,W) or (H,W), uint8 or float32, at the scale of the window; not flipped."""
        y0, x0, y1, x1 = self.visible
        height, width = array.shape[-2:]
        fy, fx = height / self.scaled[0], width / self.scaled[1]
        box = ((x0 + self.left) * fx, (y0 + self.top) * fy, (x1 + self.left) * fx, (y1 + self.top) * fy)
        # rounding may leave the image by a hair, which Pillow refuses
        box = (max(0.0, box[0]), max(0.0, box[1]), min(float(width), box[2]), min(float(height), box[3]))
        if (y1 - y0, x1 - x0) == (height, width) == self.scaled:
            return array.clone()

        def resize(part: Tensor) -> Tensor:
            image = Image.fromarray(part.numpy())
            return torch.from_numpy(np.array(image.resize((x1 - x0, y1 - y0), how, box)))

        if array.dim() == 2:
            return resize(array)
        if array.shape[0] == 3 and array.dtype == torch.uint8:
            return resize(array.movedim(0, -1).contiguous()).movedim(-1, 0).contiguous()
        return torch.stack([resize(band) for band in array])

    def shown(self) -> Tensor:
        """(H,W) bool: where the crop shows the image, flipped."""
        y0, x0, y1, x1 = self.visible
        return self.place(torch.ones(y1 - y0, x1 - x0, dtype=torch.bool), False)

    def place(self, part: Tensor, fill: float) -> Tensor:
        """The visible part (..., h, w) on a canvas of the crop's size, flipped."""
        y0, x0, y1, x1 = self.visible
        canvas = part.new_full((*part.shape[:-2], *self.size), fill)
        canvas[..., y0:y1, x0:x1] = part
        axes = [axis for axis, flipped in ((-1, self.flip), (-2, self.vertical_flip)) if flipped]
        return canvas.flip(axes) if axes else canvas


def make_sample(
    view: View,
    image: Tensor,
    mask: Tensor | None,
    *,
    geometry: Geometry,
    jitter: float = 0.0,
    mean: Sequence[float],
    std: Sequence[float],
    seed: int,
) -> dict[str, Tensor]:
    """The view of image (C,H,W), uint8 or float32 in units, and mask (H,W) uint8 that `seed` draws.

    jitter: strength of the mild colour changes of the weak image. mean, std: per channel, in units (uint8: [0, 1]).
    Gives image (C,H,W), valid (H,W); with a mask `mask` (H,W) int64; from `WeakStrong` strong (n,C,H,W); from
    `CropPair` pair_image, pair_valid, boxes (2,4), flips (2,) bool (horizontal; it never flips vertically). Raises
    ValueError where mean and std do not fit the channels.
    """
    if not len(mean) == len(std) == image.shape[0]:
        raise ValueError(
            f"found {len(mean)} means, {len(std)} deviations, {image.shape[0]} channels; expected one a channel"
        )
    draw = random.Random(seed)
    if isinstance(view, CropPair):  # its flips say left and right alone
        geometry = replace(geometry, vertical_flip=0.0)
    colours = Colours(tuple(mean), tuple(std))
    window = _draw_window(draw, (image.shape[-2], image.shape[-1]), geometry)

    def finish(window: Window, part: Tensor) -> Tensor:
        return window.place(_normalise(part, mean, std), 0.0)

    seen = window.resample(image, Image.Resampling.BILINEAR)
    sample = {"image": finish(window, colours.mild(draw, seen, jitter)), "valid": window.shown()}
    if mask is not None:
        sample["mask"] = window.place(window.resample(mask, Image.Resampling.NEAREST).long(), VOID)
    if isinstance(view, WeakStrong):
        sample["strong"] = torch.stack([finish(window, colours.strong(draw, seen, view)) for _ in range(view.strong)])
    if isinstance(view, CropPair):
        other = _overlapping(draw, window, view, geometry)
        second = colours.mild(draw, other.resample(image, Image.Resampling.BILINEAR), jitter)
        sample |= {"pair_image": finish(other, second), "pair_valid": other.shown()}
        sample["boxes"] = torch.tensor([window.box, other.box])
        sample["flips"] = torch.tensor([window.flip, other.flip])
    return sample


def _draw_window(draw: random.Random, size: Size, geometry: Geometry) -> Window:
    scale = draw.uniform(*geometry.scale)
    scaled = (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
    offsets = []
    for length, crop in zip(scaled, geometry.crop, strict=True):
        low, high = sorted((0, length - crop))
        offsets.append(draw.randint(low, high))
    flips = draw.random() < geometry.flip, draw.random() < geometry.vertical_flip
    return Window(scaled, offsets[0], offsets[1], geometry.crop, *flips)


def _overlapping(draw: random.Random, first: Window, view: CropPair, geometry: Geometry) -> Window:
    """A second crop of the same scaled image that shares a drawn part of its height and width with the first.

    Where the image ends before that the crops share more.
    """
    offsets = []
    for start, length, crop in zip((first.top, first.left), first.scaled, geometry.crop, strict=True):
        distance = round((1 - draw.uniform(*view.overlap)) * crop)
        low, high = sorted((0, length - crop))
        offsets.append(min(high, max(low, start + draw.choice((-distance, distance)))))
    flips = draw.random() < geometry.flip, draw.random() < geometry.vertical_flip
    return Window(first.scaled, offsets[0], offsets[1], first.size, *flips)


def _normalise(part: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    shape = (-1, 1, 1)
    units = part.float() / 255 if part.dtype == torch.uint8 else part
    return (units - torch.tensor(mean).view(shape)) / torch.tensor(std).view(shape)
