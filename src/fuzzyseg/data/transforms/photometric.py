"""Photometric changes of the crop: brightness, contrast, saturation, hue, grey, blur; on any number of bands.

One and three bands of 8 bits are changed as torchvision does it. For other numbers of bands, and for images in units
(float32), the same is written out below: brightness and contrast by themselves, and, since there is no colour wheel for
N bands, saturation and grey as the mixing of each pixel's bands with their mean, all bands measured in standard
deviations from their means (bands may have different units). Hue changes three bands only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

BRIGHTNESS, CONTRAST, SATURATION, HUE, BLUR, SHIFT = range(6)
Change = tuple[int, float]
"""A kind of change and how much: a factor; HUE: a turn in [-0.5, 0.5]; BLUR: the standard deviation in pixels; SHIFT:
what is added, in units ([0, 1] for uint8)."""


@dataclass(frozen=True)
class Colours:
    """Changes images (C,H,W), uint8 or float32 in units. mean, std: per channel, in units ([0, 1] for uint8)."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def changed(self, part: Tensor, changes: Sequence[Change]) -> Tensor:
        """`part` after all changes, in their order. Hue is left where there are not three bands."""
        for kind, amount in changes:
            if kind == BRIGHTNESS:
                part = self.brightness(part, amount)
            elif kind == CONTRAST:
                part = self.contrast(part, amount)
            elif kind == SATURATION:
                part = self.saturation(part, amount)
            elif kind == BLUR:
                part = blurred(part, amount)
            elif kind == SHIFT:
                part = shifted(part, amount)
            elif part.shape[0] == 3:
                part = tv.adjust_hue(part if part.dtype == torch.uint8 else part.clamp(0, 1), amount)
        return part

    def brightness(self, part: Tensor, factor: float) -> Tensor:
        """All values times `factor`."""
        if part.dtype == torch.uint8:
            # torchvision takes 1 or 3 channels; pixel by pixel as it is, any number may be read as rows of one
            rows = part if part.shape[0] in (1, 3) else part.reshape(1, -1, part.shape[-1])
            changed: Tensor = tv.adjust_brightness(rows, factor).view_as(part)
            return changed
        return part * factor

    def contrast(self, part: Tensor, factor: float) -> Tensor:
        """Distances from the mean grey value times `factor`; of N bands from each band's own mean in the crop."""
        if part.dtype == torch.uint8 and part.shape[0] in (1, 3):
            changed: Tensor = tv.adjust_contrast(part, factor)
            return changed
        values = part.float()
        mean = values.mean((-2, -1), keepdim=True)
        return _as(mean + factor * (values - mean), part)

    def saturation(self, part: Tensor, factor: float) -> Tensor:
        """Distances of a pixel's bands from their common value times `factor`; 0 is grey, one band stays as it is."""
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


def _bands(values: Sequence[float], device: torch.device) -> Tensor:
    """(C,1,1), filled on the device: a copy from the CPU would make a GPU wait."""
    return torch.cat([torch.full((1, 1, 1), value, device=device) for value in values])


def blurred(part: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of (C,H,W) with a kernel of 3 sigma each way, no wider than a reflected border can be."""
    reach = max(1, min(round(3 * sigma), part.shape[-1] - 1, part.shape[-2] - 1))
    if min(part.shape[-2:]) < 2:
        return part
    result: Tensor = tv.gaussian_blur(part, [2 * reach + 1] * 2, [sigma] * 2)
    return result


def shifted(part: Tensor, amount: float) -> Tensor:
    """`amount`, in units, added to all values, which are cut off at 0 and 1."""
    if part.dtype == torch.uint8:
        return _as(part.float() + 255 * amount, part)
    return (part + amount).clamp(0, 1)


def _as(values: Tensor, like: Tensor) -> Tensor:
    """`values` in the type of `like`: rounded and cut off for uint8."""
    return values.round().clamp(0, 255).byte() if like.dtype == torch.uint8 else values
