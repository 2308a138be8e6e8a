"""Prediction of image files: masks, overlays, probabilities, class shares."""

import csv
import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fuzzyseg.data import VOID, DataError, Item
from fuzzyseg.data.io.find import Found, counts, find_images
from fuzzyseg.data.io.image import Pixels, Windows, open_windows, read_image
from fuzzyseg.data.io.mask import save_index_png
from fuzzyseg.data.io.pillow import SUFFIXES
from fuzzyseg.data.io.write import (
    check_writable,
    class_colours,
    legend,
    overlay,
    save_picture,
    stack,
    to_picture,
    written_beside,
)
from fuzzyseg.data.labels.decode import encode_labels
from fuzzyseg.data.loading.value_range import compare
from fuzzyseg.data.text import printable
from fuzzyseg.data.views import known_pixels
from fuzzyseg.inference.model_card import ModelCard
from fuzzyseg.inference.predictor import Predictor, Protocol

log = logging.getLogger(__name__)

SHARES = "class_shares.csv"
KINDS = {"mask": "masks", "overlay": "overlays", "probabilities": "probabilities"}
"""Kinds of results and their folders."""


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

    images: a file, a folder (recursive) or a pattern such as `photos/*.jpg`. NAME.jpg gives masks/NAME.png below `out`;
    with overlay also overlays/NAME.png, the image with the classes in colour above a legend; with probabilities also
    probabilities/NAME.npy, float16 (C,H,W). If two results would have one name, all get the full file name
    (NAME.jpg.png). class_shares.csv holds the share of the pixels of each image that each class has. The pixels of a
    mask are class indices, and 255 where the image misses data; the classes' colours, if any, are its palette. encoded:
    write masks as the training masks were encoded instead: colours, 0 and 255, values from 1. tile: (H, W) of sliding
    windows; by default only images too large for one pass are predicted in windows. Large TIFF and NumPy files that
    need no resizing are read by windows; only their mask and overlay are held whole. progress: called with files done
    and in all. Files that are no images are counted in a warning.

    Returns the files written and an error for each image that could not be predicted. Raises DataError if there are no
    images, if a result would replace one of them, or if results cannot be written; no part of a file is left.
    """
    found = _find(images, out)
    kinds = ["mask"] + ["overlay"] * overlay + ["probabilities"] * probabilities
    targets = [{kind: out / KINDS[kind] / (name + _ending(kind)) for kind in kinds} for name in _names(found)]
    sources = {_identity(file) for file in found.files}
    for target in (target for results in targets for target in results.values()):
        if target.exists() and _identity(target) in sources:
            raise DataError(f"{target}: is one of the images and would be replaced; choose another --out")
    check_writable(out)
    card, items = predictor.card, [Item(file, None, file.name) for file in found.files]
    for note in compare(items, card.value_range, card.channels, card.bands, card.levels):
        log.warning(printable(note))
    protocol = Protocol("whole" if tile is None else "sliding", tile)
    written: list[Path] = []
    failures: list[DataError] = []
    shares: dict[Path, NDArray[np.float64]] = {}
    for number, (file, results) in enumerate(zip(found.files, targets, strict=True), 1):
        try:
            mask = _predict_file(predictor, file, results, protocol, encoded=encoded)
            pixels = np.bincount(mask.ravel(), minlength=VOID + 1)
            shares[file.relative_to(found.root)] = pixels / pixels.sum()
            written += results.values()
        except ValueError as error:
            failures.append(error if isinstance(error, DataError) else DataError(f"{file}: {error}"))
        except OSError as error:
            raise _unwritable(results["mask"].parent, error, len(shares), len(found.files)) from None
        if progress is not None:
            progress(number, len(found.files))
    if not shares:
        return [], failures
    try:
        _write_shares(out / SHARES, shares, predictor.card.classes)
    except OSError as error:
        raise _unwritable(out / SHARES, error, len(shares), len(found.files)) from None
    return [*written, out / SHARES], failures


def _unwritable(path: Path, error: OSError, done: int, total: int) -> DataError:
    reason = error.strerror or f"{error}: the disk may be full"  # NumPy gives no number
    return DataError(f"{path}: cannot be written ({reason}); the results of {done} of {total} images are complete")


def _identity(file: Path) -> tuple[int, int]:
    """Identity of a file, equal for all its names."""
    status = file.stat()
    return status.st_dev, status.st_ino


def _find(images: Path, out: Path) -> Found:
    """Image files; results below `out` are left out."""
    if images.is_file():
        return Found(images.parent, [images])
    if images.is_dir() and out.resolve() == images.resolve():
        raise DataError(f"{out}: is the folder of the images; choose another --out")
    found, results = find_images(images), out.resolve()
    if results != found.root.resolve():
        found.files = [file for file in found.files if not file.resolve().is_relative_to(results)]
    if not found.files:
        what = "there are no image files in it" if images.is_dir() else "there is no such file"
        what += f", but {counts(found.others)}" if found.others else ""
        raise DataError(f"{images}: {what}; expected a file, a folder or a pattern; read are {', '.join(SUFFIXES)}")
    if found.others:
        log.warning(printable(f"{images}: not read as images: {counts(found.others)}"))
    return found


def _names(found: Found) -> list[str]:
    """The unique names of the results of each file."""
    names = [str(file.relative_to(found.root).with_suffix("")) for file in found.files]
    unique = {name.lower() for name in names}  # some file systems ignore case
    return names if len(unique) == len(names) else [str(file.relative_to(found.root)) for file in found.files]


def _ending(kind: str) -> str:
    return ".npy" if kind == "probabilities" else ".png"


def _predict_file(
    predictor: Predictor, file: Path, targets: Mapping[str, Path], protocol: Protocol, *, encoded: bool
) -> Pixels:
    """Predict one image, write its results and return the mask."""
    card = predictor.card
    kind: dict[str, Any] = {"bands": card.bands, "levels": card.levels}
    windows = open_windows(file, card.channels, **kind)
    if windows is not None and "probabilities" not in targets and predictor.reads_by_windows(windows.size, protocol):
        mask, picture = _predict_rows(predictor, windows, protocol, with_overlay="overlay" in targets)
    else:
        image = np.ascontiguousarray(read_image(file, card.channels, **kind, with_known=True))
        pixels = torch.from_numpy(image).movedim(-1, 0).unsqueeze(0)
        if "probabilities" in targets:
            logits = predictor.batch_logits(pixels, protocol)[0]
            labels = logits.argmax(0)
            with written_beside(targets["probabilities"]) as part:
                np.save(part, predictor.probabilities(logits).half().cpu().numpy(), allow_pickle=False)
        else:
            labels = predictor.batch_labels(pixels, protocol)[0]
        mask = _voided(labels, image, card)
        picture = _overlaid(image, mask, card) if "overlay" in targets else None
    if encoded:
        save_picture(_encoded(mask, card, targets["mask"]), targets["mask"])
    else:
        save_index_png(mask, targets["mask"], card.colours)
    if picture is not None:
        save_picture(stack(picture, _legend(mask, card)), targets["overlay"])
    return mask


def _predict_rows(
    predictor: Predictor, windows: Windows, protocol: Protocol, *, with_overlay: bool
) -> tuple[Pixels, Pixels | None]:
    """Mask (H,W) and overlay (H,W,3) of an image that is read by windows; only these two are held whole, as uint8."""
    height, width = windows.size
    mask: Pixels = np.empty((height, width), np.uint8)
    picture: Pixels | None = np.empty((height, width, 3), np.uint8) if with_overlay else None
    read = partial(windows.read, with_known=True)
    for box, labels in predictor.label_rows(read, windows.size, protocol):
        rows, image = slice(box[0], box[2]), read(box) if with_overlay or windows.raster.may_miss else None
        mask[rows] = labels.cpu().numpy() if image is None else _voided(labels, image, predictor.card)
        if picture is not None:
            picture[rows] = _overlaid(image, mask[rows], predictor.card)
    return mask, picture


def _voided(labels: torch.Tensor, image: Pixels, card: ModelCard) -> Pixels:
    """Labels (H,W) as uint8, void where the image misses data."""
    known = known_pixels(torch.from_numpy(image).movedim(-1, 0), card.channels)
    mask = labels.cpu().to(torch.uint8)
    found: Pixels = (mask if known is None else mask.masked_fill(~known, VOID)).numpy()
    return found


def _overlaid(image: Any, mask: Any, card: ModelCard) -> Pixels:
    return overlay(to_picture(image, card.mean, card.std), mask, card.colours or class_colours(len(card.classes)))


def _legend(mask: Pixels, card: ModelCard) -> Pixels:
    """The classes of the mask with colour and share, the largest first."""
    colours = card.colours or class_colours(len(card.classes))
    pixels = np.bincount(mask.ravel(), minlength=VOID + 1)
    entries = [
        (f"{'no data' if label == VOID else card.classes[label]} {100 * pixels[label] / mask.size:.1f} %", label)
        for label in np.argsort(-pixels, kind="stable").tolist()
        if pixels[label]
    ]
    # black classes are not tinted, so that their square is empty
    shown = [(text, colours[label] if label != VOID and any(colours[label]) else None) for text, label in entries]
    return legend(shown, mask.shape[1])


def _encoded(mask: Any, card: ModelCard, path: Path) -> Pixels:
    """Class indices in the encoding of the training masks."""
    array = encode_labels(mask, card.encoding, card.ignore_index, path)
    if array.dtype != "uint8":
        raise DataError(
            f"{path}: the training masks have values up to {array.max()}; expected up to 255: leave --encoded out"
        )
    return array


def _write_shares(path: Path, shares: Mapping[Path, NDArray[np.float64]], classes: list[str]) -> None:
    """A row for each image: its path, the share of each class, and that of the pixels without data."""
    with written_beside(path) as part, part.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", *classes, "no data"])
        for image, row in shares.items():
            table.writerow([image.as_posix(), *(f"{share:.6f}" for share in (*row[: len(classes)], row[VOID]))])
