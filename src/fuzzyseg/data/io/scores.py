"""Stored predictions of a teacher, with one byte per class and output pixel of the network."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fuzzyseg.data.io.write import written_beside
from fuzzyseg.data.sample import DataError, Item

_STEPS = 16
"""A byte stores -log p in steps of 1/16, so probabilities below exp(-15.9) = 1.2e-7 are indistinguishable."""


def write_scores(path: Path, logits: Tensor) -> None:
    """Store the log-probabilities of logits (C,h,w), rounded to 1/16. The file is written atomically."""
    steps = (-_STEPS * logits.float().log_softmax(0)).round().clamp(0, 255)
    with written_beside(path) as file:
        np.savez_compressed(file, scores=steps.to(torch.uint8).cpu().numpy())


def read_scores(item: Item) -> Tensor:
    """Read the log-probabilities (C,h,w) float32 of an item, up to a constant per pixel. Raises DataError."""
    assert item.scores is not None
    try:
        with np.load(item.scores) as content:
            return torch.from_numpy(content["scores"]).float() / -_STEPS
    except Exception as error:  # zipfile, zlib and NumPy raise many types for damaged files
        raise DataError(f"{item.scores}: cannot be read ({error}); delete it and repeat `fuzzyseg distill`") from None


def scores_file(folder: Path, item: Item) -> Path:
    """Return the file for an item's stored prediction.

    Its name contains the image's file size and modification time, so that students trained on different images with the
    same names can share the folder. Earlier versions used only the name; such a file is returned if it exists.
    """
    old, status = folder / f"{item.name}.npz", item.image.stat()
    return old if old.is_file() else folder / f"{item.name}-{status.st_size:x}-{status.st_mtime_ns:x}.npz"


def with_scores(items: list[Item], folder: str | None) -> list[Item]:
    """Return the items with `scores` set. Raises DataError if a prediction is missing or `folder` is None."""
    if folder is None:
        raise DataError("data.scores: not given; `fuzzyseg distill TEACHER_RUN` stores predictions, then trains")
    scored = [replace(item, scores=scores_file(Path(folder), item)) for item in items]
    missing = [item.name for item in scored if item.scores is not None and not item.scores.is_file()]
    if missing:
        raise DataError(
            f"{folder}: {len(missing)} of {len(items)} unlabelled images have no stored prediction, such as "
            f"{missing[0]!r}; run `fuzzyseg distill` with the same data"
        )
    return scored
