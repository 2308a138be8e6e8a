"""Prediction of a single image file, whole or in bands of rows, and writing of its outputs."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fuzzyseg.data import VOID
from fuzzyseg.data.io.image import Image, open_windows, read_image
from fuzzyseg.data.sample import Box, Size
from fuzzyseg.inference.outputs import ARRAYS, RASTERS, Band, Fuzzy
from fuzzyseg.inference.outputs.arrays import opened_array
from fuzzyseg.inference.outputs.rasters import files_of, georeference, opened_raster
from fuzzyseg.inference.predictor import Predictor, Protocol

STRIP = 512
"""Number of rows of a large image that are read at once for outputs that need its pixels."""


@dataclass(frozen=True)
class ImagePrediction:
    """Predicts images and writes the results below `out`. kinds: raster and array outputs, the mask first."""

    predictor: Predictor
    out: Path
    kinds: list[str]
    protocol: Protocol
    fuzzy: Fuzzy
    encoded: bool

    def files(self, name: str, *, geo: bool) -> list[Path]:
        """Return the output files of an image with this name, the mask first. geo: whether it is georeferenced."""
        paths: list[Path] = []
        for kind in self.kinds:
            path = self._path(kind, name)
            paths += files_of(kind, path, self.predictor.card, geo=geo) if kind in RASTERS else [path]
        return paths

    def _path(self, kind: str, name: str) -> Path:
        return self.out / (f"{RASTERS[kind].folder}/{name}" if kind in RASTERS else f"{kind}/{name}.npz")

    def write(self, file: Path, name: str) -> tuple[list[Path], NDArray[np.int64]]:
        """Predict a file; return its outputs and the pixel counts (256,) by mask value. Raises DataError."""
        card, geo = self.predictor.card, georeference(file)
        size, bands = self.bands(file)
        pixels = np.zeros(VOID + 1, np.int64)
        with ExitStack() as files:
            writes = [
                files.enter_context(
                    opened_raster(kind, self._path(kind, name), size, card, geo, encoded=self.encoded)
                    if kind in RASTERS
                    else opened_array(kind, self._path(kind, name), size, card)
                )
                for kind in self.kinds
            ]
            for band in bands:
                for write in writes:
                    write(band)
                pixels += np.bincount(band.mask.ravel(), minlength=VOID + 1)
        return self.files(name, geo=geo is not None), pixels

    def bands(self, file: Path) -> tuple[Size, Iterator[Band]]:
        """Return an image's size, and an iterator that predicts it and yields bands of rows from top to bottom."""
        card = self.predictor.card
        kind: dict[str, Any] = {"bands": card.bands, "levels": card.levels}
        windows = open_windows(file, card.channels, **kind)
        if windows is not None and self.predictor.reads_by_windows(windows.size, self.protocol):
            seen = "overlay" in self.kinds or windows.raster.may_miss
            return windows.size, self._rows(partial(windows.read, with_known=True), windows.size, seen)
        image = np.ascontiguousarray(read_image(file, card.channels, **kind, with_known=True))
        size = (image.shape[0], image.shape[1])
        if self.predictor.reads_by_windows(size, self.protocol):
            return size, self._rows(lambda box: image[box[0] : box[2], box[1] : box[3]], size, True)
        return size, iter([self._whole(image)])

    def _whole(self, image: Image) -> Band:
        images = torch.from_numpy(image).movedim(-1, 0).unsqueeze(0)
        probabilities = None
        if any(kind in ARRAYS or RASTERS[kind].needs_probabilities for kind in self.kinds):
            logits = self.predictor.batch_logits(images, self.protocol)[0]
            labels, probabilities = logits.argmax(0), logits.softmax(0)
        else:  # needs far less memory
            labels = self.predictor.batch_labels(images, self.protocol)[0]
        return self._band((0, 0, *image.shape[:2]), labels, probabilities, image)

    def _rows(self, read: Callable[[Box], Image], size: Size, seen: bool) -> Iterator[Band]:
        """Yield the prediction of a large image in bands of rows. seen: include the image's pixels in each band."""
        strip, top = None, 0
        for box, probabilities in self.predictor.probability_rows(read, size, self.protocol):
            if seen and (strip is None or box[2] > top + len(strip)):
                top = box[0]
                strip = read((top, 0, min(max(box[2], top + STRIP), size[0]), size[1]))
            image = None if strip is None else strip[box[0] - top : box[2] - top]
            yield self._band(box, probabilities.argmax(0), probabilities, image)

    def _band(self, box: Box, labels: torch.Tensor, probabilities: torch.Tensor | None, image: Image | None) -> Band:
        return Band(box, labels, probabilities, image, self.predictor.card, self.fuzzy, self.encoded)


Written = tuple[list[Path], NDArray[np.int64]]
"""The outputs of an image, and its pixel counts (256,) by mask value."""
Spread = Callable[[ImagePrediction, Iterable[tuple[Path, str]]], Iterator[tuple[Path, Written | ValueError]]]
"""Function that predicts (file, result name) pairs and yields each file with its result or error, in any order."""


def one_by_one(
    prediction: ImagePrediction, files: Iterable[tuple[Path, str]]
) -> Iterator[tuple[Path, Written | ValueError]]:
    """Predict the files one by one in this process."""
    for file, name in files:
        try:
            yield file, prediction.write(file, name)
        except ValueError as error:
            yield file, error
