"""Outputs as NumPy archives, built in memory: probabilities, and bit-packed fuzzy sets."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fuzzyseg.data import VOID
from fuzzyseg.data.io.write import written_beside
from fuzzyseg.data.sample import Size
from fuzzyseg.inference.model_card import ModelCard
from fuzzyseg.inference.outputs.band import Band
from fuzzyseg.inference.outputs.rasters import Write


def _probabilities(band: Band) -> NDArray[Any]:
    """Return (C,rows,W) float16."""
    return band.calibrated.half().cpu().numpy()


def _sets(band: Band) -> NDArray[Any]:
    """Return (bytes,rows,W) uint8: bits of class 0, 1, ..., starting with the highest bit of the first byte."""
    return np.packbits(band.sets.cpu().numpy(), axis=0)


ARRAYS: dict[str, Callable[[Band], NDArray[Any]]] = {"probabilities": _probabilities, "sets": _sets}
"""Array outputs by name, which is also the name of their folder and of the array."""


@contextmanager
def opened_array(kind: str, path: Path, size: Size, card: ModelCard) -> Iterator[Write]:
    """Yield a function that adds a band to NAME.npz; the file, with the class names, is written on exit.

    Pixels without data are 0.
    """
    array: NDArray[Any] | None = None

    def put(band: Band) -> None:
        nonlocal array
        part = ARRAYS[kind](band)
        if array is None:
            array = np.empty((len(part), *size), part.dtype)
        array[:, band.box[0] : band.box[2]] = np.where(band.mask == VOID, part.dtype.type(0), part)

    with written_beside(path) as file:
        yield put
        assert array is not None
        content: dict[str, Any] = {kind: array, "classes": np.array(card.classes)}
        np.savez_compressed(file, **content)
