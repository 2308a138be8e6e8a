"""Datasets given as Python objects, written once to a folder in a layout that fuzzyseg reads."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from fuzzyseg.data import DataError
from fuzzyseg.data.io.image import of_pillow
from fuzzyseg.data.io.mask import save_index_png
from fuzzyseg.data.io.pillow import upright
from fuzzyseg.data.io.write import save_picture, written_beside
from fuzzyseg.plugins import datasets
from fuzzyseg.run.files import write_text

DESCRIPTION = "dataset.yaml"


class Pairs(Protocol):
    """A map-style torch dataset whose samples are (image, mask or None).

    image: (H,W) or (H,W,C), as an array, tensor or PIL image. mask: class indices (H,W), 255 for void.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


Source = Pairs | Mapping[str, Pairs]
"""Training dataset, or datasets by split (train, val, test). An attribute `classes` gives the class names."""


def find_dataset(name: str | None) -> Source | None:
    """Return the custom dataset with this name; None if there is none, or if a file or folder has this name."""
    factory = None if name is None or Path(name).exists() else datasets().get(name)
    return None if factory is None else factory()


def write_dataset(source: Source, folder: Path, *, keep: bool = False) -> Path:
    """Write a dataset as image and mask files to `folder`, replacing its content, and return the folder.

    8-bit images with one or three channels are written as PNG, others as NumPy files. Files are named by split and
    index.

    Args:
        source: the dataset, or datasets by split.
        folder: output folder.
        keep: leave a complete folder unchanged.

    Raises:
        DataError: a sample has an unexpected type or shape; the message names split and index.
    """
    if keep and (folder / DESCRIPTION).is_file():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    splits = source if isinstance(source, Mapping) else {"train": source}
    for split, pairs in splits.items():
        for index in range(len(pairs)):
            where, pair = f"data: item {index} of {split}", pairs[index]
            if not isinstance(pair, tuple | list) or len(pair) != 2:
                raise DataError(f"{where}: found {type(pair).__name__}; expected a pair (image, mask or None)")
            image, mask = _pixels(pair[0]), None
            if pair[1] is not None:
                mask = np.asarray(upright(pair[1]) if isinstance(pair[1], Image) else pair[1])
            _write_image(image, folder / "images" / split / f"{index:06d}", where)
            if mask is not None:
                _write_mask(mask, folder / "masks" / split / f"{index:06d}.png", where, image.shape[:2])
    classes = next((list(each.classes) for each in (source, *splits.values()) if hasattr(each, "classes")), None)
    lines = ["ignore_index: 255", *([] if classes is None else [f"classes: {json.dumps(classes)}"])]
    write_text(folder / DESCRIPTION, "\n".join(lines) + "\n")  # last: marks the folder as complete
    return folder


def _pixels(image: Any) -> NDArray[Any]:
    """Return the pixels of an image; a Pillow image is decoded like an image file."""
    if not isinstance(image, Image):
        return np.asarray(image)
    array, alpha = of_pillow(upright(image))
    return array[..., :-1] if alpha else array


def _write_image(image: Any, path: Path, where: str) -> None:
    if image.ndim not in (2, 3) or not image.size:
        raise DataError(f"{where}: found an image of shape {image.shape}; expected (H,W) or (H,W,C)")
    if image.dtype == np.uint8 and image.shape[2:] in ((), (1,), (3,)):
        save_picture(image, path.with_suffix(".png"))
    else:
        with written_beside(path.with_suffix(".npy")) as part:
            np.save(part, image)


def _write_mask(mask: Any, path: Path, where: str, size: tuple[int, ...]) -> None:
    if mask.shape != size or mask.dtype.kind not in "iub" or mask.min() < 0 or mask.max() > 255:
        raise DataError(
            f"{where}: found a mask {mask.dtype} of shape {mask.shape}; expected class indices 0 to 254, 255 for void, "
            f"of shape {tuple(size)}, like its image"
        )
    save_index_png(mask, path)
