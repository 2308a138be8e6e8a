"""The comparison of an exported model with PyTorch on the user's own images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fuzzyseg.data import Item
from fuzzyseg.data.io.image import read_image, read_native
from fuzzyseg.data.sample import Size
from fuzzyseg.inference.export.formats import Run
from fuzzyseg.inference.export.graph import Deployed
from fuzzyseg.inference.predictor import Predictor
from fuzzyseg.inference.sliding_window import starts

SIDE, WINDOWS, CROPPED = 2048, 4, 10
"""Longest side of what is compared of an image, most windows of it, and the images that further sizes are cut from."""


class ExportError(ValueError):
    """An export whose labels differ from those of PyTorch."""


@dataclass(frozen=True)
class Agreement:
    """Agreement of two models over images: their number, the sizes (H, W) compared, pixels, share of equal labels,
    largest difference of logits, and the image with the most differing labels with that share."""

    images: int
    sizes: list[Size]
    pixels: int
    equal: float
    largest: float
    worst: str
    worst_differing: float

    def describe(self) -> str:
        """The agreement in words."""
        sizes = ", ".join(f"{height}x{width}" for height, width in self.sizes[:5])
        return (
            f"{100 * self.equal:.4f} % of the labels equal PyTorch's over {self.pixels} pixels of {self.images} images "
            f"({sizes}{', ...' if len(self.sizes) > 5 else ''}); largest difference of logits {self.largest:.2g}"
        )


def compare(predictor: Predictor, model: Deployed, run: Run, items: Sequence[Item], least: Size) -> Agreement:
    """Compare `run` with `predictor` on images: whole ones at sizes of their own, smaller ones, or windows."""
    images, equal, pixels, largest, worst = 0, 0, 0, 0.0, (-1.0, "")
    sizes: dict[Size, None] = {}
    for number, item in enumerate(items):
        raw, known = _values(predictor, item.image)
        here = total = 0
        for values, inputs in _parts(predictor, model, raw, known, least, more=number < CROPPED):
            expected = predictor.batch_logits(inputs).cpu() / predictor.card.temperature
            logits, labels = run(values)
            sizes[expected.shape[-2], expected.shape[-1]] = None
            here += int((labels == expected.argmax(1)).sum())
            total += labels.numel()
            difference = float((logits - expected).abs().max())
            largest = max(largest, difference if difference == difference else float("inf"))
        images, equal, pixels = images + 1, equal + here, pixels + total
        worst = max(worst, (1 - here / total, item.name))
    return Agreement(images, list(sizes), pixels, equal / pixels, largest, worst[1], worst[0])


def _values(predictor: Predictor, path: Path) -> tuple[Tensor, Tensor]:
    """(1,Cin,H,W) values of a file for the exported model, and for `Predictor.batch_logits`."""
    card = predictor.card
    known = read_image(path, card.channels, bands=card.bands, levels=card.levels)
    ranged = card.levels is not None and card.levels.low is not None
    raw = read_native(path, card.channels, bands=card.bands).astype(np.float32) if ranged else known
    one, other = (
        torch.from_numpy(np.ascontiguousarray(each[:SIDE, :SIDE])).movedim(-1, 0).unsqueeze(0) for each in (raw, known)
    )
    return one, other


def _parts(
    predictor: Predictor, model: Deployed, raw: Tensor, known: Tensor, least: Size, *, more: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """Parts of the same place of both: the image and, if any size fits, 3/4 and 1/2 of it; or windows of one size."""
    height, width = raw.shape[-2:]
    if model.size is None:
        for factor in (1.0, 0.75, 0.5) if more else (1.0,):
            rows, columns = (max(low, round(factor * side)) for low, side in zip(least, (height, width), strict=True))
            yield _cut(raw, 0, 0, (rows, columns)), _cut(known, 0, 0, (rows, columns))
    elif predictor.card.image_size is not None:
        one, other = (F.interpolate(each, size=model.size, mode="bilinear", antialias=True) for each in (raw, known))
        yield one, other
    else:
        places = [(top, left) for top in starts(height, model.size[0]) for left in starts(width, model.size[1])]
        for top, left in places[:: -(-len(places) // WINDOWS)]:
            yield _cut(raw, top, left, model.size), _cut(known, top, left, model.size)


def _cut(image: Tensor, top: int, left: int, size: Size) -> Tensor:
    """A part of an image, with its border repeated where the image ends."""
    part = image[..., top : top + size[0], left : left + size[1]]
    below, right = size[0] - part.shape[-2], size[1] - part.shape[-1]
    if below or right:
        part = F.pad(part.float(), (0, right, 0, below), mode="replicate").to(image.dtype)
    return part.contiguous()
