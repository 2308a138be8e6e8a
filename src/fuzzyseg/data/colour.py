"""Colour changes of an image in [0, 1]: brightness, contrast, saturation, hue, grey, blur.

Images are float (C,H,W). Saturation, hue and grey are defined for three channels (RGB) only; with any other number of
channels they are left out and the rest stays. Every draw comes from the generator that is handed in.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from fuzzyseg.data.views import WeakStrong


def uniform(low: float, high: float, generator: torch.Generator) -> float:
    """A number between low and high."""
    return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))


def chance(probability: float, generator: torch.Generator) -> bool:
    """True with this probability. A number is drawn in any case, so that later draws do not depend on it."""
    return uniform(0.0, 1.0, generator) < probability


def adjust_brightness(image: Tensor, factor: float) -> Tensor:
    """All values times factor, cut off at 1."""
    return (image * factor).clamp(0, 1)


def adjust_contrast(image: Tensor, factor: float) -> Tensor:
    """Distances from the mean grey value times factor, cut off at 0 and 1."""
    grey = F.rgb_to_grayscale(image) if image.shape[0] == 3 else image
    return (grey.mean() * (1 - factor) + image * factor).clamp(0, 1)


def jitter(
    image: Tensor, *, brightness: float, contrast: float, saturation: float, hue: float, generator: torch.Generator
) -> Tensor:
    """Brightness, contrast and saturation times a factor from [max(0, 1 - x), 1 + x], hue turned by up to +-hue.

    A hue of 0.5 is half a turn. The order of the four is random; a strength of 0 leaves its property exactly alone.
    """
    factors = [uniform(max(0.0, 1 - x), 1 + x, generator) for x in (brightness, contrast, saturation)]
    turn = uniform(-hue, hue, generator)
    changes: list[tuple[float, Callable[[Tensor], Tensor]]] = [
        (brightness, lambda x: adjust_brightness(x, factors[0])),
        (contrast, lambda x: adjust_contrast(x, factors[1])),
        (saturation, lambda x: F.adjust_saturation(x, factors[2])),
        (hue, lambda x: F.adjust_hue(x, turn)),
    ]
    for place in torch.randperm(4, generator=generator).tolist():
        strength, change = changes[place]
        if strength > 0 and (place < 2 or image.shape[0] == 3):
            image = change(image)
    return image


def blur(image: Tensor, sigma: float) -> Tensor:
    """Gaussian blur, cut off at 3 sigma (in pixels) or where the kernel would be wider than the mirrored image."""
    size = [2 * min(math.ceil(3 * sigma), side - 1) + 1 for side in (image.shape[2], image.shape[1])]
    blurred: Tensor = F.gaussian_blur(image, size, [sigma, sigma])
    return blurred


def mild(image: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """What a weak view gets: brightness, contrast and saturation by `strength`; 0 leaves the image exactly alone."""
    return jitter(image, brightness=strength, contrast=strength, saturation=strength, hue=0.0, generator=generator)


def strong(image: Tensor, view: WeakStrong, generator: torch.Generator) -> Tensor:
    """One strong view of the image, with the probabilities and strengths of `view`."""
    if chance(view.jitter_probability, generator):
        image = jitter(
            image,
            brightness=view.brightness,
            contrast=view.contrast,
            saturation=view.saturation,
            hue=view.hue,
            generator=generator,
        )
    if chance(view.grey_probability, generator) and image.shape[0] == 3:
        image = F.rgb_to_grayscale(image, num_output_channels=3)
    if chance(view.blur_probability, generator):
        image = blur(image, uniform(*view.blur_sigma, generator))
    return image
