"""Predictions for a band of image rows, from which all outputs are computed."""

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from fuzzyseg.data import VOID
from fuzzyseg.data.io.image import Image, Pixels
from fuzzyseg.data.sample import Box
from fuzzyseg.data.views import known_pixels
from fuzzyseg.inference.model_card import ModelCard
from fuzzyseg.losses.fpl.assignment import assign
from fuzzyseg.losses.fpl.options import FPLOptions


@dataclass(frozen=True)
class Fuzzy:
    """Settings of the fuzzy positive set (Alg. 1): threshold T in (0, 1], and the options of the loss."""

    threshold: float = 0.9
    options: FPLOptions = field(default_factory=FPLOptions)


@dataclass(frozen=True)
class Band:
    """Rows of an image, at the size of its file.

    box: y0, x0, y1, x1. labels: (rows,W) int64. probabilities: (C,rows,W) float32; None unless an output needs them.
    image: (rows,W,channels), with an extra last channel of known pixels if data can be missing; None unless needed.
    encoded: write masks in the encoding of the training masks.
    """

    box: Box
    labels: Tensor
    probabilities: Tensor | None
    image: Image | None
    card: ModelCard
    fuzzy: Fuzzy
    encoded: bool = False

    @cached_property
    def mask(self) -> Pixels:
        """Class indices (rows,W) uint8; void where the image has no data."""
        image = None if self.image is None else torch.from_numpy(self.image).movedim(-1, 0)
        known = None if image is None else known_pixels(image, self.card.channels)
        mask = self.labels.cpu().to(torch.uint8)
        labels: Pixels = (mask if known is None else mask.masked_fill(~known, VOID)).numpy()
        return labels

    @cached_property
    def calibrated(self) -> Tensor:
        """Probabilities (C,rows,W), calibrated by the card's temperature."""
        return (self._log() / self.card.temperature).softmax(0)

    def _log(self) -> Tensor:
        assert self.probabilities is not None
        return self.probabilities.clamp_min(torch.finfo(torch.float32).tiny).log()

    @cached_property
    def sets(self) -> Tensor:
        """Whether each class is in a pixel's fuzzy positive set, as in the loss: (C,rows,W) bool."""
        return assign(self._log().unsqueeze(0), self.fuzzy.threshold, self.fuzzy.options).membership()[0] > 0
