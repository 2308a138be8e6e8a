"""Comparison of an exported model with PyTorch on the user's images."""

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
"""Maximum side of the part of an image that is compared, maximum number of its windows, and number of images that are
also compared at smaller sizes."""


class ExportError(ValueError):
    """Raised if the labels of an export differ from those of PyTorch."""


@dataclass(frozen=True)
class Agreement:
    """Agreement between two models on images.

    images: number of images. sizes: compared (H, W). pixels: number of pixels. equal: fraction of equal labels.
    largest: maximum absolute difference between logits. worst: image with the highest fraction of differing labels,
    `worst_differing`.
    """

    images: int
    sizes: list[Size]
    pixels: int
    equal: float
    largest: float
    worst: str
    worst_differing: float

    def describe(self) -> str:
        """Return a description of the agreement."""
        sizes = ", ".join(f"{height}x{width}" for height, width in self.sizes[:5])
        return (
            f"{100 * self.equal:.4f} % of the labels equal PyTorch's over {self.pixels} pixels of {self.images} images "
            f"({sizes}{', ...' if len(self.sizes) > 5 else ''}); largest difference of logits {self.largest:.2g}"
        )


def compare(predictor: Predictor, model: Deployed, run: Run, items: Sequence[Item], minimum: Size) -> Agreement:
    """Compare `run` with `predictor` on images, using the parts from `_parts`."""
    images, equal, pixels, largest, worst = 0, 0, 0, 0.0, (-1.0, "")
    sizes: dict[Size, None] = {}
    for number, item in enumerate(items):
        raw, known = _values(predictor, item.image)
        equal_here = pixels_here = 0
        for values, inputs in _parts(predictor, model, raw, known, minimum, crops=number < CROPPED):
            expected = predictor.batch_logits(inputs).cpu() / predictor.card.temperature
            logits, labels = run(values)
            sizes[expected.shape[-2], expected.shape[-1]] = None
            equal_here += int((labels == expected.argmax(1)).sum())
            pixels_here += labels.numel()
            difference = float((logits - expected).abs().max())
            largest = max(largest, difference if difference == difference else float("inf"))
        images, equal, pixels = images + 1, equal + equal_here, pixels + pixels_here
        worst = max(worst, (1 - equal_here / pixels_here, item.name))
    return Agreement(images, list(sizes), pixels, equal / pixels, largest, worst[1], worst[0])


def _values(predictor: Predictor, path: Path) -> tuple[Tensor, Tensor]:
    """Return the values (1,Cin,H,W) of a file for the exported model, and those for `Predictor.batch_logits`."""
    card = predictor.card
    known = read_image(path, card.channels, bands=card.bands, levels=card.levels)
    ranged = card.levels is not None and card.levels.low is not None
    raw = read_native(path, card.channels, bands=card.bands).astype(np.float32) if ranged else known
    one, other = (
        torch.from_numpy(np.ascontiguousarray(each[:SIDE, :SIDE])).movedim(-1, 0).unsqueeze(0) for each in (raw, known)
    )
    return one, other


def _parts(
    predictor: Predictor, model: Deployed, raw: Tensor, known: Tensor, minimum: Size, *, crops: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield matching inputs: the image and crops (3/4, 1/2) or, for a fixed size, windows or the resized image."""
    height, width = raw.shape[-2:]
    if model.size is None:
        for factor in (1.0, 0.75, 0.5) if crops else (1.0,):
            rows, columns = (max(low, round(factor * side)) for low, side in zip(minimum, (height, width), strict=True))
            yield _cut(raw, 0, 0, (rows, columns)), _cut(known, 0, 0, (rows, columns))
    elif predictor.card.image_size is not None:
        one, other = (F.interpolate(each, size=model.size, mode="bilinear", antialias=True) for each in (raw, known))
        yield one, other
    else:
        places = [(top, left) for top in starts(height, model.size[0]) for left in starts(width, model.size[1])]
        for top, left in places[:: -(-len(places) // WINDOWS)]:
            yield _cut(raw, top, left, model.size), _cut(known, top, left, model.size)


def _cut(image: Tensor, top: int, left: int, size: Size) -> Tensor:
    """Return a crop of an image, padded by edge replication where the image ends."""
    part = image[..., top : top + size[0], left : left + size[1]]
    below, right = size[0] - part.shape[-2], size[1] - part.shape[-1]
    if below or right:
        part = F.pad(part.float(), (0, right, 0, below), mode="replicate").to(image.dtype)
    return part.contiguous()
