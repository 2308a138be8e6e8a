"""Which colour changes a view of a sample gets: drawn here, made by `colour`, at once or later on the device."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fuzzyseg.data.transforms.photometric import BLUR, BRIGHTNESS, CONTRAST, HUE, SATURATION, SHIFT, Change, Colours
from fuzzyseg.data.views import WeakStrong

_MOST = 6  # a strong view: four kinds of jitter, grey, blur
_NONE = -1


def mild(draw: random.Random, strength: float) -> list[Change]:
    """Brightness, contrast and saturation by the same strength; 0 changes and draws nothing."""
    return _jitter(draw, strength, strength, strength, 0.0) if strength > 0 else []


def strong(draw: random.Random, view: WeakStrong, blur: float = 1.0) -> list[Change]:
    """Colour jitter, grey, blur, each with its probability. blur: factor of the view's sigma."""
    changes: list[Change] = []
    if draw.random() < view.jitter_probability:
        changes += _jitter(draw, view.brightness, view.contrast, view.saturation, view.hue, view.add_brightness)
    if draw.random() < view.grey_probability:
        changes.append((SATURATION, 0.0))
    if draw.random() < view.blur_probability:
        changes.append((BLUR, blur * draw.uniform(*view.blur_sigma)))
    return changes


def _jitter(
    draw: random.Random, brightness: float, contrast: float, saturation: float, hue: float, added: bool = False
) -> list[Change]:
    """Brightness, contrast, saturation and hue by random factors, in random order. added: of brightness, no factor."""

    def factor(strength: float) -> float:
        return draw.uniform(max(0.0, 1 - strength), 1 + strength)

    light = (SHIFT, draw.uniform(-brightness, brightness)) if added else (BRIGHTNESS, factor(brightness))
    changes = [light, (CONTRAST, factor(contrast)), (SATURATION, factor(saturation)), (HUE, draw.uniform(-hue, hue))]
    return [change for change in draw.sample(changes, 4) if change[0] != HUE or hue > 0]


def as_tensor(changes: Sequence[Change]) -> Tensor:
    """(6,2) float64: kind and amount of each change, kind -1 where there is none."""
    return torch.tensor([*changes, *[(_NONE, 0.0)] * (_MOST - len(changes))], dtype=torch.float64)


@dataclass(frozen=True)
class Pending:
    """Colour changes that the images of a batch are still to get.

    views: for the image, and then for each strong view or the other crop of the pair, (B,6,2) as of `as_tensor`.
    shown: for the same images (B,4), y0, x0, y1, x1 of what is no padding. Both stay on the CPU: reading them back
    would make a GPU wait. colours: how changes are made.
    """

    views: tuple[Tensor, ...]
    shown: tuple[Tensor, ...]
    colours: Colours

    @classmethod
    def of(cls, content: Mapping[str, Tensor], colours: Colours) -> Pending | None:
        """Of stacked samples (see `make_sample`); None where their colours are changed already."""
        if "changes" not in content:
            return None
        return cls(content["changes"].unbind(1), content["shown"].unbind(1), colours)

    def made(self, image: Tensor, view: int) -> Tensor:
        """The images (B,C,H,W) with the changes of one view, wherever they are; padding stays as it is."""
        result = image.clone()
        for place, (changes, box) in enumerate(zip(self.views[view].tolist(), self.shown[view].tolist(), strict=True)):
            y0, x0, y1, x1 = box
            found = [(int(kind), amount) for kind, amount in changes if kind != _NONE]
            if found:
                result[place, :, y0:y1, x0:x1] = self.colours.changed(image[place, :, y0:y1, x0:x1], found)
        return result
