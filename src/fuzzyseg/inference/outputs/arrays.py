"""Outputs that are NumPy archives, which are held whole: probabilities, and fuzzy sets as bits."""

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
    """(C,rows,W) float16."""
    assert band.probabilities is not None
    return band.probabilities.half().cpu().numpy()


def _sets(band: Band) -> NDArray[Any]:
    """(bytes,rows,W): the bits of class 0, 1, ... from the highest bit of the first byte on."""
    return np.packbits(band.sets.cpu().numpy(), axis=0)


ARRAYS: dict[str, Callable[[Band], NDArray[Any]]] = {"probabilities": _probabilities, "sets": _sets}
"""Outputs that are arrays, by name, which is that of their folder and of the array too."""


@contextmanager
def opened_array(kind: str, path: Path, size: Size, card: ModelCard) -> Iterator[Write]:
    """A function that takes the part of NAME.npz that a band holds; the file, with the class names, is written last.

    Pixels without data are 0.
    """
    whole: NDArray[Any] | None = None

    def put(band: Band) -> None:
        nonlocal whole
        part = ARRAYS[kind](band)
        if whole is None:
            whole = np.empty((len(part), *size), part.dtype)
        whole[:, band.box[0] : band.box[2]] = np.where(band.mask == VOID, part.dtype.type(0), part)

    with written_beside(path) as file:
        yield put
        assert whole is not None
        content: dict[str, Any] = {kind: whole, "classes": np.array(card.classes)}
        np.savez_compressed(file, **content)
