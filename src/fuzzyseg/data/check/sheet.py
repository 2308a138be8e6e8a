"""Contact sheet of the classes: a picture with the colour, name, share and an example of each class."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from fuzzyseg.data.check.labels import MaskStatistics
from fuzzyseg.data.io.header import read_header
from fuzzyseg.data.io.image import read_native
from fuzzyseg.data.io.write import check_writable, class_colours, save_picture, to_picture
from fuzzyseg.data.labels.decode import PLAIN, decode_array, mask_of, read_stored
from fuzzyseg.data.sample import VOID, Colour, DataError, DataSet, Item

SUFFIXES = (".png", ".jpg", ".jpeg")

TILE, GAP, TEXT = 200, 12, 16
"""Side of an example, spacing and font size, in pixels."""

FADED = 0.8
"""Opacity of the white or black that is blended into pixels of other classes."""

MIN_SIDE = 64
"""Minimum side of an example's crop, in pixels, before scaling."""

_FILL = (235, 235, 235)


def check_sheet(path: Path, items: Sequence[Item]) -> None:
    """Raise DataError if the sheet cannot be written, or would be mistaken for a file of the dataset."""
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(f"--sheet: found {path}; expected a file name that ends in {' or '.join(SUFFIXES)}")
    files = {file.parent for item in items for file in (item.image, item.mask) if file is not None}
    folders, here = {folder.resolve() for folder in files}, path.resolve().parent
    above = {parent for folder in folders for parent in (folder, *folder.parents)}
    root = Path(os.path.commonpath(folders)) if folders else here  # images/ for images/train/; read recursively
    if here in folders or (here in above and here != root and here.is_relative_to(root)):
        raise DataError(f"--sheet {path}: is in a data folder and would be read as an image; choose another")
    check_writable(path.parent)


def save_sheet(path: Path, dataset: DataSet, items: Sequence[Item], masks: Sequence[MaskStatistics]) -> None:
    """Write the contact sheet of the classes. Raises OSError without leaving a partial file."""
    save_picture(np.asarray(contact_sheet(dataset, items, masks)), path)


def contact_sheet(dataset: DataSet, items: Sequence[Item], masks: Sequence[MaskStatistics]) -> Image.Image:
    """Draw one cell for each class and, if it occurs, for void. masks: statistics of the masks of `items`.

    A cell shows the colour, index, name, share of the non-void pixels (for void: of all pixels), number of masks, and
    the largest example: a crop of the image, plain and with everything else faded.
    """
    colours = dataset.colours or class_colours(len(dataset.classes))
    entries = [(index, f"{index}: {name}", colours[index]) for index, name in enumerate(dataset.classes)]
    pixels = {index: sum(mask.pixels_of(index) for mask in masks if mask.counts) for index, *_ in entries}
    valid = sum(pixels.values())
    pixels[VOID] = sum(mask.void for mask in masks)
    cells = []
    for index, title, colour in [*entries, *[(VOID, "void", None)] * (pixels[VOID] > 0)]:
        areas = [mask.pixels_of(index) if mask.counts else 0 for mask in masks]
        share = 100 * pixels[index] / max(1, valid + pixels[VOID] * (index == VOID))
        caption = f"{share:.3g} % of the pixels, in {sum(map(bool, areas))} of {len(masks)} masks"
        best = items[int(np.argmax(areas))] if any(areas) else None
        cells.append(_cell(title, caption, colour, _example(best, index, dataset.ignore_index)))
    columns = min(len(cells), 1 if len(cells) < 3 else 2 if len(cells) < 9 else 3 if len(cells) < 25 else 5)
    width, height = cells[0].size
    sheet = Image.new("RGB", (columns * width, -(-len(cells) // columns) * height), "white")
    for place, cell in enumerate(cells):
        sheet.paste(cell, (place % columns * width, place // columns * height))
    return sheet


def _cell(title: str, caption: str, colour: Colour | None, example: Sequence[Image.Image] | str) -> Image.Image:
    line, square = round(1.4 * TEXT), 2 * round(1.4 * TEXT)
    cell = Image.new("RGB", (2 * TILE + 3 * GAP, TILE + square + 3 * GAP), "white")
    draw = ImageDraw.Draw(cell)
    box = (GAP, GAP, GAP + square - 4, GAP + square - 4)
    draw.rectangle(box, fill=colour or "white", outline="black")
    if colour is None:
        draw.line(box, fill="black")
    left, room = GAP + square + GAP // 2, 2 * TILE + GAP - square - GAP // 2
    _write(draw, (left, GAP - 2), title, room, TEXT)
    _write(draw, (left, GAP - 2 + line), caption, room, TEXT - 3)
    top = square + 2 * GAP
    if isinstance(example, str):
        draw.rectangle((GAP, top, 2 * GAP + 2 * TILE, top + TILE), fill=_FILL)
        _write(draw, (2 * GAP, top + GAP), example, 2 * TILE - GAP, TEXT)
    else:
        for place, part in enumerate(example):
            x = GAP + place * (TILE + GAP)
            draw.rectangle((x, top, x + TILE - 1, top + TILE - 1), fill=_FILL)
            cell.paste(part, (x + (TILE - part.width) // 2, top + (TILE - part.height) // 2))
    return cell


def _write(draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, room: int, size: int) -> None:
    """Draw a line of text, truncated to the width `room` in pixels."""
    font = ImageFont.load_default(size=size)
    text = " ".join(text.split())
    if font.getlength(text) > room:
        while text and font.getlength(text + "...") > room:
            text = text[:-1]
        text += "..."
    draw.text(place, text, fill="black", font=font)


def _example(item: Item | None, label: int, ignore_index: int) -> list[Image.Image] | str:
    """Return a crop around a class, plain and with everything else faded, or the reason why there is no example."""
    if item is None:
        return "in no mask"
    try:
        image, stored = _picture(item), read_stored(item)
    except DataError:
        return "its image is too large to be shown"
    here = decode_array(stored, item.encoding or PLAIN, ignore_index, mask_of(item)).labels == label
    boxes = [_enlarged(np.flatnonzero(here.any(axis)), size) for axis, size in ((1, len(here)), (0, here.shape[1]))]
    part, here = image[boxes[0], boxes[1]], here[boxes[0], boxes[1], None]
    target = 255 * (part[here[..., 0]].mean() < 128)  # white beside dark pixels, black beside bright ones
    faded = np.where(here, part, (part * (1 - FADED) + target * FADED).astype(np.uint8))
    scale = TILE / max(part.shape[:2])
    size = max(1, round(part.shape[1] * scale)), max(1, round(part.shape[0] * scale))
    return [Image.fromarray(each).resize(size, Image.Resampling.LANCZOS) for each in (part, faded)]


def _enlarged(places: NDArray[np.intp], size: int) -> slice:
    """Return the range of rows or columns that a class occupies, with a margin."""
    low, high = int(places[0]), int(places[-1]) + 1
    margin = max((high - low) // 8, (MIN_SIDE - (high - low)) // 2)
    return slice(max(0, low - margin), min(size, high + margin))


def _picture(item: Item) -> NDArray[np.uint8]:
    """Return the image as (H, W, 3) uint8, scaled by mean and standard deviation unless it is 8-bit grey or RGB."""
    head = read_header(item.image)
    bands = 3 if head.palette else head.bands
    pixels: NDArray[Any] = read_native(item.image, bands)[..., : bands - head.alpha or 1]
    numbers = np.nan_to_num(pixels.astype(np.float32), posinf=0, neginf=0) / (255 if pixels.dtype == np.uint8 else 1)
    mean, std = (getattr(numbers, name)((0, 1)).tolist() for name in ("mean", "std"))
    shown = to_picture(pixels, mean, std)
    return np.broadcast_to(shown, (*shown.shape[:2], 3)).copy()
