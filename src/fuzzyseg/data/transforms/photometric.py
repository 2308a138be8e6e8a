"""Photometric transforms of a crop with any number of bands: brightness, contrast, saturation, hue, grey, blur.

Transforms are drawn on the CPU, and applied there or, as `Pending`, on the device. 8-bit images with one or three bands
are transformed by torchvision. For other images, brightness and contrast apply to each band separately. Saturation and
grey mix the bands of each pixel with their mean, in standard deviations from each band's mean, because bands may have
different units. Hue applies only to images with three bands.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from fuzzyseg.data.views import WeakStrong

BRIGHTNESS, CONTRAST, SATURATION, HUE, BLUR, SHIFT = range(6)
Change = tuple[int, float]
"""Kind and amount of a transform. The amount is a factor, except for HUE (a rotation in [-0.5, 0.5]), BLUR (the
standard deviation in pixels) and SHIFT (an offset in units, [0, 1] for uint8)."""

_MAX_CHANGES = 6  # maximum number of transforms of a strong view: four jitter transforms, grey, blur
_NONE = -1


def draw_weak(draw: random.Random, strength: float) -> list[Change]:
    """Draw brightness, contrast and saturation with equal strength. Draws no random numbers at strength 0."""
    return _draw_jitter(draw, strength, strength, strength, 0.0) if strength > 0 else []


def draw_strong(draw: random.Random, view: WeakStrong, blur: float = 1.0) -> list[Change]:
    """Draw colour jitter, grey and blur, each with its probability. blur: factor for the view's sigma."""
    changes: list[Change] = []
    if draw.random() < view.jitter_probability:
        changes += _draw_jitter(draw, view.brightness, view.contrast, view.saturation, view.hue, view.add_brightness)
    if draw.random() < view.grey_probability:
        changes.append((SATURATION, 0.0))
    if draw.random() < view.blur_probability:
        changes.append((BLUR, blur * draw.uniform(*view.blur_sigma)))
    return changes


def _draw_jitter(
    draw: random.Random, brightness: float, contrast: float, saturation: float, hue: float, add: bool = False
) -> list[Change]:
    """Draw the four jitter transforms in random order. add: add the brightness instead of multiplying by it."""

    def factor(strength: float) -> float:
        return draw.uniform(max(0.0, 1 - strength), 1 + strength)

    light = (SHIFT, draw.uniform(-brightness, brightness)) if add else (BRIGHTNESS, factor(brightness))
    changes = [light, (CONTRAST, factor(contrast)), (SATURATION, factor(saturation)), (HUE, draw.uniform(-hue, hue))]
    return [change for change in draw.sample(changes, 4) if change[0] != HUE or hue > 0]


def as_tensor(changes: Sequence[Change]) -> Tensor:
    """Return the kind and amount of each transform as a tensor (6,2) float64, padded with kind -1."""
    return torch.tensor([*changes, *[(_NONE, 0.0)] * (_MAX_CHANGES - len(changes))], dtype=torch.float64)


@dataclass(frozen=True)
class Colours:
    """Applies transforms to images (C,H,W), uint8 or float32 in units. mean, std: per channel, in units."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def apply(self, part: Tensor, changes: Sequence[Change]) -> Tensor:
        """Apply the transforms in order. Hue is skipped unless the image has three bands."""
        functions = (self.brightness, self.contrast, self.saturation, turned, blurred, shifted)  # indexed by kind
        for kind, amount in changes:
            part = functions[kind](part, amount)
        return part

    def brightness(self, part: Tensor, factor: float) -> Tensor:
        """Multiply all values by `factor`."""
        if part.dtype == torch.uint8:
            # torchvision supports 1 or 3 channels; brightness is pixelwise, so N channels can be rows of one channel
            rows = part if part.shape[0] in (1, 3) else part.reshape(1, -1, part.shape[-1])
            changed: Tensor = tv.adjust_brightness(rows, factor).view_as(part)
            return changed
        return part * factor

    def contrast(self, part: Tensor, factor: float) -> Tensor:
        """Scale the differences from the mean grey value or, for N bands, from each band's mean by `factor`."""
        if part.dtype == torch.uint8 and part.shape[0] in (1, 3):
            changed: Tensor = tv.adjust_contrast(part, factor)
            return changed
        values = part.float()
        mean = values.mean((-2, -1), keepdim=True)
        return _as(mean + factor * (values - mean), part)

    def saturation(self, part: Tensor, factor: float) -> Tensor:
        """Scale the differences of a pixel's bands from their mean by `factor`; 0: grey. Single bands are unchanged."""
        if part.shape[0] == 1:
            return part
        if part.dtype == torch.uint8 and part.shape[0] == 3:
            changed: Tensor = (
                tv.rgb_to_grayscale(part, num_output_channels=3) if factor == 0 else tv.adjust_saturation(part, factor)
            )
            return changed
        scale = 255.0 if part.dtype == torch.uint8 else 1.0
        mean, std = (scale * _bands(each, part.device) for each in (self.mean, self.std))
        deviations = (part.float() - mean) / std
        common = deviations.mean(0, keepdim=True)
        return _as((common + factor * (deviations - common)) * std + mean, part)


@dataclass(frozen=True)
class Pending:
    """Photometric transforms that are applied to the images of a batch on its device.

    views: (B,6,2) for the image and for each strong view or the second crop; see `as_tensor`. shown: (B,4) for the same
    images; y0, x0, y1, x1 of the part that is not padding. Both remain on the CPU, because reading them from a GPU
    would synchronise it.
    """

    views: tuple[Tensor, ...]
    shown: tuple[Tensor, ...]
    colours: Colours

    @classmethod
    def of(cls, content: Mapping[str, Tensor], colours: Colours) -> Pending | None:
        """Collect the transforms of stacked samples (see `make_sample`). Returns None if they are already applied."""
        if "changes" not in content:
            return None
        return cls(content["changes"].unbind(1), content["shown"].unbind(1), colours)

    def apply(self, image: Tensor, view: int) -> Tensor:
        """Apply the transforms of one view to images (B,C,H,W). Padding is unchanged."""
        result = image.clone()
        for place, (changes, box) in enumerate(zip(self.views[view].tolist(), self.shown[view].tolist(), strict=True)):
            y0, x0, y1, x1 = box
            applied = [(int(kind), amount) for kind, amount in changes if kind != _NONE]
            if applied:
                result[place, :, y0:y1, x0:x1] = self.colours.apply(image[place, :, y0:y1, x0:x1], applied)
        return result


def _bands(values: Sequence[float], device: torch.device) -> Tensor:
    """Return a tensor (C,1,1), filled on the device because a copy from the CPU would synchronise a GPU."""
    return torch.cat([torch.full((1, 1, 1), value, device=device) for value in values])


def turned(part: Tensor, amount: float) -> Tensor:
    """Rotate the hue of an image with three bands. Other images are unchanged."""
    if part.shape[0] != 3:
        return part
    result: Tensor = tv.adjust_hue(part if part.dtype == torch.uint8 else part.clamp(0, 1), amount)
    return result


def blurred(part: Tensor, sigma: float) -> Tensor:
    """Apply a Gaussian blur to (C,H,W). The kernel radius is 3 sigma, within the limits of reflection padding."""
    reach = max(1, min(round(3 * sigma), part.shape[-1] - 1, part.shape[-2] - 1))
    if min(part.shape[-2:]) < 2:
        return part
    result: Tensor = tv.gaussian_blur(part, [2 * reach + 1] * 2, [sigma] * 2)
    return result


def shifted(part: Tensor, amount: float) -> Tensor:
    """Add `amount`, in units, to all values, and clamp them to [0, 1]."""
    if part.dtype == torch.uint8:
        return _as(part.float() + 255 * amount, part)
    return (part + amount).clamp(0, 1)


def _as(values: Tensor, like: Tensor) -> Tensor:
    """Convert `values` to the dtype of `like`, rounding and clamping for uint8."""
    return values.round().clamp(0, 255).byte() if like.dtype == torch.uint8 else values
