"""Random scale, crop and flip, and the creation of a sample's views from a decoded image.

All random numbers are drawn in a fixed order from one generator, seeded per sample. Only the part of the image inside
the crop is resampled. Padding is 0 after normalisation (the mean colour), False in `valid`, and 255 in the mask.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fuzzyseg.data.sample import VOID, Size
from fuzzyseg.data.transforms.lazy import Large, chosen_place
from fuzzyseg.data.transforms.photometric import Change, Colours, as_tensor, draw_strong, draw_weak
from fuzzyseg.data.views import CropPair, View, WeakStrong, known_pixels


@dataclass(frozen=True)
class Geometry:
    """Parameters of the geometric transforms.

    crop: (H, W) of the views. scale: range of the random scale. scale_draw: `uniform` draws from the whole range,
    `halves` with probability 0.5 from the part below 1, otherwise from the part above. flip, vertical_flip:
    probabilities. blur_reference: side length in pixels. For crops whose shorter side is smaller, the blur sigma of
    strong views is reduced in proportion.
    """

    crop: Size
    scale: tuple[float, float] = (0.5, 2.0)
    scale_draw: Literal["uniform", "halves"] = "uniform"
    flip: float = 0.5
    vertical_flip: float = 0.0
    blur_reference: int = 1

    def __post_init__(self) -> None:
        """Raise ValueError if `halves` is used with a range that does not contain 1."""
        if self.scale_draw == "halves" and not self.scale[0] <= 1 <= self.scale[1]:
            raise ValueError(f"augment.scale: found {self.scale}; augment.scale_draw=halves needs a range around 1")

    def draw_scale(self, draw: random.Random) -> float:
        """Draw a random scale, using exactly one random number."""
        low, high = self.scale
        if self.scale_draw == "uniform":
            return draw.uniform(low, high)
        share = 2 * draw.random()
        return low + (1 - low) * share if share < 1 else 1 + (high - 1) * (share - 1)

    @property
    def blur(self) -> float:
        """Factor by which the blur sigma is multiplied, at most 1."""
        return min(1.0, min(self.crop) / self.blur_reference)


@dataclass(frozen=True)
class Window:
    """A crop of the scaled image: top-left corner (negative in the padding), size, and flips."""

    scaled: Size
    top: int
    left: int
    size: Size
    flip: bool
    vertical_flip: bool

    @property
    def visible(self) -> tuple[int, int, int, int]:
        """y0, x0, y1, x1 of the image within the crop, in crop coordinates before flipping."""
        y0, x0 = max(0, -self.top), max(0, -self.left)
        y1, x1 = min(self.size[0], self.scaled[0] - self.top), min(self.size[1], self.scaled[1] - self.left)
        return y0, x0, y1, x1

    @property
    def box(self) -> tuple[int, int, int, int]:
        """y0, x0, y1, x1 of the crop in the scaled image, before flipping."""
        return self.top, self.left, self.top + self.size[0], self.left + self.size[1]

    @property
    def shown_box(self) -> tuple[int, int, int, int]:
        """y0, x0, y1, x1 of the image within the crop, after flipping."""
        y0, x0, y1, x1 = self.visible
        height, width = self.size
        if self.vertical_flip:
            y0, y1 = height - y1, height - y0
        if self.flip:
            x0, x1 = width - x1, width - x0
        return y0, x0, y1, x1

    def resample(self, array: Tensor | Large, resampling: Image.Resampling) -> Tensor:
        """Resample the visible part of `array` (C,H,W) or (H,W), uint8 or float32, to the window's scale. No flips."""
        y0, x0, y1, x1 = self.visible
        height, width = array.shape[-2:]
        fy, fx = height / self.scaled[0], width / self.scaled[1]
        box = ((x0 + self.left) * fx, (y0 + self.top) * fy, (x1 + self.left) * fx, (y1 + self.top) * fy)
        # Pillow raises an error if rounding puts the box outside the image
        box = (max(0.0, box[0]), max(0.0, box[1]), min(float(width), box[2]), min(float(height), box[3]))
        if (y1 - y0, x1 - x0) == (height, width) == self.scaled:
            return array.whole() if isinstance(array, Large) else array.clone()
        if isinstance(array, Large):
            array, box = array.around(box, (x1 - x0, y1 - y0))

        def resize(part: Tensor) -> Tensor:
            image = Image.fromarray(part.numpy())
            return torch.from_numpy(np.array(image.resize((x1 - x0, y1 - y0), resampling, box)))

        if array.dim() == 2:
            return resize(array)
        if array.shape[0] == 3 and array.dtype == torch.uint8:
            # Pillow stores channels last
            return resize(array.movedim(0, -1).contiguous()).movedim(-1, 0)
        return torch.stack([resize(band) for band in array])

    def shown(self, known: Tensor | None = None) -> Tensor:
        """Return a bool mask (H,W) of the flipped crop: True inside the image and, if given, where `known`."""
        y0, x0, y1, x1 = self.visible
        return self.place(torch.ones(y1 - y0, x1 - x0, dtype=torch.bool) if known is None else known, False)

    def place(self, part: Tensor, fill: float) -> Tensor:
        """Pad the visible part (..., h, w) to the crop size with `fill`, and flip it."""
        y0, x0, y1, x1 = self.visible
        canvas = part
        if (y1 - y0, x1 - x0) != self.size:
            bands = part.movedim(0, -1).shape[2:] if part.dim() == 3 else ()
            canvas = part.new_full((*self.size, *bands), fill)
            canvas = canvas.movedim(-1, 0) if bands else canvas
            canvas[..., y0:y1, x0:x1] = part
        axes = [axis for axis, flipped in ((-1, self.flip), (-2, self.vertical_flip)) if flipped]
        return canvas.flip(axes) if axes else canvas


def make_sample(
    view: View,
    image: Tensor | Large,
    mask: Tensor | Large | None,
    scores: Tensor | None = None,
    *,
    geometry: Geometry,
    jitter: float = 0.0,
    mean: Sequence[float],
    std: Sequence[float],
    seed: int,
    focus: int = -1,
    colours_later: bool = False,
) -> dict[str, Tensor]:
    """Create the views of an image (C,H,W), uint8 or float32 in units, and of a mask (H,W) uint8, if given.

    scores: float32 maps (K,h,w) of the whole image at any resolution, such as log-probabilities. seed: seed for all
    random numbers. The image may have an extra band of known pixels (see `Reader.read`). Only the crop of a `Large`
    image is read. jitter: strength of the weak image's colour jitter. mean, std: per channel, in units (uint8: [0, 1]),
    for photometric transforms of N bands. focus: class that the crop must contain if the mask does; -1: none.
    colours_later: draw photometric transforms without applying them.

    Returns `image` (C,H,W) and `valid` (H,W); with a mask, `mask` (H,W), 255 where not valid; with scores, `scores`
    (K,H,W), 0 in the padding; for `WeakStrong`, `strong` (n,C,H,W); for `CropPair`, `pair_image`, `pair_valid`, `boxes`
    (2,4) and `flips` (2,) bool (horizontal only). Images are 0 in the padding, not normalised (see `Batch.to`).
    With colours_later, `strong` is replaced by `changes` (V,6,2) and `shown` (V,4), one entry per view; see `Pending`.
    """
    draw = random.Random(seed)
    if isinstance(view, CropPair):  # `flips` describes horizontal flips only
        geometry = replace(geometry, vertical_flip=0.0)
    colours, later = Colours(tuple(mean), tuple(std)), list[tuple[list[Change], Window]]()
    window = _draw_window(draw, (image.shape[-2], image.shape[-1]), geometry)
    if mask is not None and focus >= 0:
        window = _over_class(draw, window, mask, focus)

    def changes() -> list[Change]:
        strong_colours = view.colours if isinstance(view, CropPair) else None
        return draw_weak(draw, jitter) if strong_colours is None else draw_strong(draw, strong_colours, geometry.blur)

    def finish(window: Window, part: Tensor, drawn: list[Change]) -> Tensor:
        if colours_later:
            later.append((drawn, window))
        return window.place(part if colours_later else colours.apply(part, drawn), 0)

    seen, known = _resample(window, image, len(mean))
    sample = {"image": finish(window, seen, changes()), "valid": window.shown(known)}
    sample |= _targets(window, mask, scores, None if known is None else sample["valid"])
    if isinstance(view, WeakStrong):
        copies = [finish(window, seen, draw_strong(draw, view, geometry.blur)) for _ in range(view.strong)]
        sample |= {} if colours_later else {"strong": stacked(copies)}
    if isinstance(view, CropPair):
        other = _overlapping(draw, window, view, geometry)
        second, known = _resample(other, image, len(mean))
        sample |= {"pair_image": finish(other, second, changes()), "pair_valid": other.shown(known)}
        sample["boxes"] = torch.tensor([window.box, other.box])
        sample["flips"] = torch.tensor([window.flip, other.flip])
    if colours_later:
        sample["changes"] = torch.stack([as_tensor(drawn) for drawn, _ in later])
        sample["shown"] = torch.tensor([where.shown_box for _, where in later])
    return sample


def _resample(window: Window, image: Tensor | Large, channels: int) -> tuple[Tensor, Tensor | None]:
    """Return the visible part of an image (C,h,w), and a mask of its known pixels if it may have missing data."""
    part = window.resample(image, Image.Resampling.BILINEAR)
    return part[:channels], known_pixels(part, channels)


def _targets(
    window: Window, mask: Tensor | Large | None, scores: Tensor | None, valid: Tensor | None
) -> dict[str, Tensor]:
    """Return the crops of `mask` and `scores`, if given, by name. The mask is void where `valid` is False."""
    targets = {}
    if mask is not None:
        labels = window.place(window.resample(mask, Image.Resampling.NEAREST), VOID)
        targets["mask"] = labels if valid is None else labels.masked_fill(~valid, VOID)
    if scores is not None:
        targets["scores"] = window.place(window.resample(scores, Image.Resampling.BILINEAR), 0)
    return targets


def stacked(parts: list[Tensor]) -> Tensor:
    """Stack like `torch.stack`, but preserve the channels-last memory format of images (..., C,H,W)."""
    if parts[0].dim() < 3 or parts[0].is_contiguous():
        return torch.stack(parts)
    return torch.stack([part.movedim(-3, -1) for part in parts]).movedim(-1, -3)


def _draw_window(draw: random.Random, size: Size, geometry: Geometry) -> Window:
    scale = geometry.draw_scale(draw)
    scaled = (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
    offsets = []
    for length, crop in zip(scaled, geometry.crop, strict=True):
        low, high = sorted((0, length - crop))
        offsets.append(draw.randint(low, high))
    flips = draw.random() < geometry.flip, draw.random() < geometry.vertical_flip
    return Window(scaled, offsets[0], offsets[1], geometry.crop, *flips)


_TRIES = 50


def _over_class(draw: random.Random, window: Window, mask: Tensor | Large, label: int) -> Window:
    """Move the window over a random pixel of a class, unless the scaled mask (H,W) does not contain it."""
    # only pixels that nearest-neighbour scaling keeps: downscaling may remove small objects
    rows, columns = (
        ((torch.arange(scaled, dtype=torch.float64) + 0.5) * length / scaled).long().clamp(max=length - 1)
        for scaled, length in zip(window.scaled, mask.shape, strict=True)
    )
    place = chosen_place(mask, rows, columns, label, draw.randrange)
    if place is None:
        return window
    offsets = []
    for pixel, scaled, crop in zip(place, window.scaled, window.size, strict=True):
        low, high = sorted((0, scaled - crop))
        offsets.append(draw.randint(max(low, pixel - crop + 1), min(high, pixel)))
    return replace(window, top=offsets[0], left=offsets[1])


def _overlapping(draw: random.Random, first: Window, view: CropPair, geometry: Geometry) -> Window:
    """Draw a second crop of the same scaled image, whose overlap with the first is a random fraction of its sides.

    Near the image border, the overlap is larger. Crops are redrawn if their intersection over union is out of range.
    After 50 rejected draws, both crops coincide.
    """
    for _ in range(_TRIES):
        offsets = _near(draw, first, view)
        common = math.prod(crop - abs(offset) for crop, offset in zip(first.size, offsets, strict=True))
        if view.iou[0] <= common / (2 * math.prod(first.size) - common) <= view.iou[1]:
            break
    else:
        offsets = [0, 0]
    flips = draw.random() < geometry.flip, draw.random() < geometry.vertical_flip
    return Window(first.scaled, first.top + offsets[0], first.left + offsets[1], first.size, *flips)


def _near(draw: random.Random, first: Window, view: CropPair) -> list[int]:
    """Draw the offset (y, x) of the second crop, in multiples of the stride, so that it remains within the image."""
    offsets = []
    for start, length, crop in zip((first.top, first.left), first.scaled, first.size, strict=True):
        steps = round((1 - draw.uniform(*view.overlap)) * crop / view.stride)
        max_steps = int((1 - view.overlap[0]) * crop / view.stride + 1e-9)
        low, high = sorted((0, length - crop))
        if draw.random() < 0.5:
            offsets.append(-min(steps, max_steps, (start - low) // view.stride) * view.stride)
        else:
            offsets.append(min(steps, max_steps, (high - start) // view.stride) * view.stride)
    return offsets
