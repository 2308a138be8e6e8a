"""Prediction of image files: masks, overlays, probabilities."""

from __future__ import annotations

import glob
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from fuzzyseg.data import DataError
from fuzzyseg.data.io.image import Pixels, Windows, open_windows, read_image
from fuzzyseg.data.io.mask import save_index_png
from fuzzyseg.data.io.pillow import SUFFIXES
from fuzzyseg.data.io.write import default_colours, overlay, save_array, save_picture, to_picture
from fuzzyseg.data.labels.decode import encode_labels
from fuzzyseg.data.sample import Colour
from fuzzyseg.inference.model_card import ModelCard
from fuzzyseg.inference.predictor import Predictor, Protocol


def predict_files(
    predictor: Predictor,
    images: Path,
    out: Path,
    *,
    overlay: bool = True,
    probabilities: bool = False,
    encoded: bool = False,
    tile: tuple[int, int] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Path], list[DataError]]:
    """Write an index mask (8-bit PNG, the size of the image) for each image file.

    images: a file, a folder (recursive) or a pattern such as `photos/*.jpg`. NAME.jpg gives NAME.png in the same folder
    below `out`; with overlay also NAME_overlay.png, the image with the classes in colour; with probabilities also
    NAME_probabilities.npy, float16 (C,H,W). If two results would have one name, all get the full file name
    (NAME.jpg.png). The pixels of a mask are class indices; the classes' colours, if any, are its palette. encoded:
    write masks as the training masks were encoded instead: colours, 0 and 255, values from 1. tile: (H, W) of sliding
    windows; by default only images too large for one pass are predicted in windows. Large TIFF and NumPy files that
    need no resizing are read by windows; only their mask and overlay are held whole. progress: called with files done
    and in all.

    Returns the files written and an error for each image that could not be predicted. Raises DataError if there are no
    images, or if a result would replace one of them.
    """
    found = _find(images, out)
    names = _names(found, overlay, probabilities)
    sources = {_identity(file) for file in found}
    for target in (out / result for results in names for result in results.values()):
        if target.exists() and _identity(target) in sources:
            raise DataError(f"{target}: is one of the images and would be replaced; choose another --out")
    protocol = Protocol("whole" if tile is None else "sliding", tile)
    written: list[Path] = []
    failures: list[DataError] = []
    for number, (file, results) in enumerate(zip(found, names, strict=True), 1):
        try:
            targets = {kind: out / result for kind, result in results.items()}
            _predict_file(predictor, file, targets, protocol, encoded=encoded)
            written += targets.values()
        except ValueError as error:
            failures.append(error if isinstance(error, DataError) else DataError(f"{file}: {error}"))
        if progress is not None:
            progress(number, len(found))
    return written, failures


def _identity(file: Path) -> tuple[int, int]:
    """Identity of a file, equal for all its names."""
    status = file.stat()
    return status.st_dev, status.st_ino


def _find(images: Path, out: Path) -> dict[Path, Path]:
    """Image files, each with its path below the given folder; results below `out` are left out."""
    if images.is_file():
        return {images: Path(images.name)}
    if images.is_dir():
        root, files = images, sorted(images.rglob("*"))
    else:
        root = Path(*_before_pattern(images))
        files = sorted(Path(match) for match in glob.glob(str(images), recursive=True))
    results = out.resolve()
    if images.is_dir() and results == images.resolve():
        raise DataError(f"{out}: is the folder of the images; choose another --out")
    found = {
        file: file.relative_to(root)
        for file in files
        if file.is_file()
        and file.suffix.lower() in SUFFIXES
        and (results == root.resolve() or not file.resolve().is_relative_to(results))
    }
    if not found:
        what = "there are no image files in it" if images.is_dir() else "there is no such file"
        raise DataError(f"{images}: {what}; expected a file, a folder or a pattern; read are {', '.join(SUFFIXES)}")
    return found


def _before_pattern(pattern: Path) -> list[str]:
    """The leading parts of a path without wildcards."""
    parts: list[str] = []
    for part in pattern.parts[:-1]:
        if glob.has_magic(part):
            break
        parts.append(part)
    return parts


def _names(found: dict[Path, Path], overlay: bool, probabilities: bool) -> list[dict[str, str]]:
    """The unique result paths of each file below `out`, by kind."""

    def results(stem: str) -> dict[str, str]:
        names = {"mask": f"{stem}.png"}
        if overlay:
            names["overlay"] = f"{stem}_overlay.png"
        if probabilities:
            names["probabilities"] = f"{stem}_probabilities.npy"
        return names

    short = [results(str(name.with_suffix(""))) for name in found.values()]
    every = [name.lower() for names in short for name in names.values()]  # some file systems ignore case
    return short if len(set(every)) == len(every) else [results(str(name)) for name in found.values()]


def _predict_file(
    predictor: Predictor, file: Path, targets: dict[str, Path], protocol: Protocol, *, encoded: bool
) -> None:
    """Predict one image and write its results."""
    card = predictor.card
    kind: dict[str, Any] = {"bands": card.bands, "levels": card.levels}
    for target in targets.values():
        target.parent.mkdir(parents=True, exist_ok=True)
    windows = open_windows(file, card.channels, **kind)
    if windows is not None and "probabilities" not in targets and predictor.reads_by_windows(windows.size, protocol):
        mask, picture = _predict_rows(predictor, windows, protocol, with_overlay="overlay" in targets)
    else:
        image = read_image(file, card.channels, **kind)
        if "probabilities" in targets:
            logits = predictor.logits(image, protocol)
            labels = logits.argmax(0)
            save_array(logits.softmax(0).half().cpu().numpy(), targets["probabilities"])
        else:
            labels = predictor.labels(image, protocol)
        mask = labels.cpu().numpy()
        picture = _overlaid(image, mask, card) if "overlay" in targets else None
    if encoded:
        save_picture(_encoded(mask, card, targets["mask"]), targets["mask"])
    else:
        save_index_png(mask, targets["mask"], card.colours)
    if picture is not None:
        save_picture(picture, targets["overlay"])


def _predict_rows(
    predictor: Predictor, windows: Windows, protocol: Protocol, *, with_overlay: bool
) -> tuple[Pixels, Pixels | None]:
    """Mask (H,W) and overlay (H,W,3) of an image that is read by windows; only these two are held whole, as uint8."""
    height, width = windows.size
    mask: Pixels = torch.empty(height, width, dtype=torch.uint8).numpy()
    picture: Pixels | None = torch.empty(height, width, 3, dtype=torch.uint8).numpy() if with_overlay else None
    for box, labels in predictor.label_rows(windows.read, windows.size, protocol):
        rows = slice(box[0], box[2])
        mask[rows] = labels.cpu().numpy()
        if picture is not None:
            picture[rows] = _overlaid(windows.read(box), mask[rows], predictor.card)
    return mask, picture


def _overlaid(image: Any, mask: Any, card: ModelCard) -> Pixels:
    return overlay(to_picture(image, card.mean, card.std), mask, _colours(card))


def _colours(card: ModelCard) -> list[Colour]:
    return card.colours or default_colours(len(card.classes))


def _encoded(mask: Any, card: ModelCard, path: Path) -> Pixels:
    """Class indices in the encoding of the training masks."""
    array = encode_labels(mask, card.encoding, card.ignore_index, path)
    if array.dtype != "uint8":
        raise DataError(
            f"{path}: the training masks have values up to {array.max()}; expected up to 255: leave --encoded out"
        )
    return array
