"""Outputs for annotation tools, generated from the masks of all images: COCO, LabelMe, CVAT and Label Studio."""

import io
import json
import os
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from PIL import Image

from fuzzyseg.data import VOID, DataError
from fuzzyseg.data.io.image import Pixels
from fuzzyseg.data.io.write import class_colours, written_beside
from fuzzyseg.data.labels.class_lists import IGNORE, background_of, plain
from fuzzyseg.data.sample import Colour
from fuzzyseg.inference.model_card import ModelCard
from fuzzyseg.inference.outputs.polygons import check_polygons, polygons, through_centres

BLACK = (0, 0, 0)


Add = Callable[[Path, Path, str, Pixels], None]
"""Function that adds an image, given its file, path relative to the image folder, result name and mask (H,W)."""


def not_drawn(card: ModelCard) -> list[int]:
    """Return the mask values that are not objects: void, and a class named background."""
    background = background_of(card.classes)
    return [VOID] if background is None else [VOID, background]


@contextmanager
def _coco(out: Path, card: ModelCard) -> Iterator[Add]:
    """Write coco.json, with one polygon per connected region. Yields a function that adds an image."""
    content: dict[str, list[Any]] = {"images": [], "annotations": []}
    categories = [{"id": index + 1, "name": name} for index, name in enumerate(card.classes)]

    def add(file: Path, path: Path, name: str, mask: Pixels) -> None:
        number, (height, width) = len(content["images"]) + 1, mask.shape
        entry = {"id": number, "file_name": path.as_posix(), "height": height, "width": width}
        content["images"].append(entry)
        for label, ring in polygons(mask, not_drawn(card)):
            (left, top), (right, bottom) = ring.min(0).tolist(), ring.max(0).tolist()
            x, y = ring.T
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": number,
                    "category_id": label + 1,
                    "segmentation": [ring.ravel().tolist()],
                    "area": abs(float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum())) / 2,
                    "bbox": [left, top, right - left, bottom - top],
                    "iscrowd": 0,
                }
            )

    yield add
    _write_json(out / "coco.json", {**content, "categories": categories})


@contextmanager
def _labelme(out: Path, card: ModelCard) -> Iterator[Add]:
    """Write labelme/NAME.json, with one polygon per connected region and a relative image path. Yields like `_coco`."""

    def add(file: Path, path: Path, name: str, mask: Pixels) -> None:
        target = out / "labelme" / f"{name}.json"
        about: dict[str, Any] = {"group_id": None, "shape_type": "polygon", "flags": {}}
        shapes = [
            {"label": card.classes[label], "points": through_centres(ring).tolist(), **about}
            for label, ring in polygons(mask, not_drawn(card))
        ]
        height, width = mask.shape
        source = {"imagePath": Path(os.path.relpath(file, target.parent)).as_posix(), "imageData": None}
        size = {"imageHeight": height, "imageWidth": width}
        _write_json(target, {"version": "5.5.0", "flags": {}, "shapes": shapes, **source, **size})

    yield add


@contextmanager
def _cvat(out: Path, card: ModelCard) -> Iterator[Add]:
    """Write cvat.zip, a "Segmentation mask 1.1" archive of coloured masks. Yields like `_coco`.

    A class named background is black, following CVAT; otherwise void is.
    """
    background = background_of(card.classes)
    for colours in (list(card.colours or ()), class_colours(len(card.classes))):
        if background is not None and colours:
            colours[background] = BLACK
        if len({*colours, BLACK}) == len(card.classes) + (background is None):
            break
    unused: Colour = next((each, 1, 2) for each in range(256) if (each, 1, 2) not in colours)
    table = np.zeros((VOID + 1, 3), np.uint8)
    table[: len(colours)] = colours
    table[VOID] = BLACK if background is None else unused
    lines = [f"{name}:{','.join(map(str, colour))}::" for name, colour in zip(card.classes, colours, strict=True)]
    names, void = list[str](), False
    with written_beside(out / "cvat.zip") as part, zipfile.ZipFile(part, "w") as archive:

        def add(file: Path, path: Path, name: str, mask: Pixels) -> None:
            nonlocal void
            name = Path(name).as_posix()
            names.append(name)
            void = void or bool((mask == VOID).any())
            memory = io.BytesIO()
            Image.fromarray(table[mask]).save(memory, "png")
            archive.writestr(f"SegmentationClass/{name}.png", memory.getvalue())

        yield add
        if background is not None and void:
            lines.append(f"{IGNORE}:{','.join(map(str, unused))}::")
        archive.writestr("labelmap.txt", "\n".join(["# label:color_rgb:parts:actions", *lines, ""]))
        archive.writestr("ImageSets/Segmentation/default.txt", "\n".join([*names, ""]))


@contextmanager
def _label_studio(out: Path, card: ModelCard) -> Iterator[Add]:
    """Write labelstudio.json: one task per image, with one predicted brush region per class. Yields like `_coco`.

    For a labelling configuration with `<BrushLabels name="label" toName="image">` and `<Image name="image"
    value="$image"/>`; the image URL is its path below the folder that Label Studio serves as local files.
    """
    tasks: list[dict[str, Any]] = []

    def add(file: Path, path: Path, name: str, mask: Pixels) -> None:
        height, width = mask.shape
        entry = {"original_width": width, "original_height": height, "image_rotation": 0, "type": "brushlabels"}
        regions = [
            {
                "id": f"{len(tasks) + 1}-{label}",
                "from_name": "label",
                "to_name": "image",
                **entry,
                "value": {"format": "rle", "rle": brush_runs(mask == label), "brushlabels": [card.classes[label]]},
            }
            for label in np.unique(mask).tolist()
            if label not in not_drawn(card)
        ]
        address = f"/data/local-files/?d={quote(os.fsencode(path.as_posix()))}"
        predictions = [{"model_version": f"fuzzyseg step {card.step}", "result": regions}]
        tasks.append({"data": {"image": address}, "predictions": predictions})

    yield add
    _write_json(out / "labelstudio.json", tasks)


def brush_runs(pixels: np.ndarray[Any, np.dtype[np.bool_]]) -> list[int]:
    """Encode pixels (H,W) as the bytes of a Label Studio brush region, the bit stream of `@thi.ng/rle-pack`.

    32 bits: number of values, four (red, green, blue, opacity) per pixel, each 0 or 255. 5 bits: bits per value (8)
    minus 1. Four times 4 bits: the widths of run lengths, minus 1. Then each run: bit 1, 2 bits for the index of the
    width (here always the last, 16), the length minus 1, and the value in 8 bits.
    """
    flat = pixels.ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    starts = np.concatenate([[0], edges])
    lengths = 4 * np.diff(np.concatenate([starts, [len(flat)]]))
    parts = -(-lengths // 2**16)  # runs of at most 2**16 values
    values = np.repeat(np.where(flat[starts], 255, 0), parts)
    rest = lengths - (parts - 1) * 2**16
    runs = np.full(len(values), 2**16)
    runs[np.cumsum(parts) - 1] = rest
    words = (0b111 << 24) | (runs - 1 << 8) | values  # 27 bits each
    head = [(4 * flat.size, 32), (7, 5), *((width - 1, 4) for width in (3, 4, 8, 16))]
    bits = [_bits(np.array([value]), width) for value, width in head] + [_bits(words, 27)]
    return list(np.packbits(np.concatenate(bits)).tobytes())


def _bits(values: np.ndarray[Any, Any], width: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return the numbers as `width` bits each, most significant first."""
    return (values[:, None] >> np.arange(width - 1, -1, -1) & 1).astype(np.uint8).ravel()


def _write_json(path: Path, content: object) -> None:
    with written_beside(path) as part:
        part.write_text(json.dumps(content, ensure_ascii=True, separators=(",", ":")), encoding="utf-8")


ANNOTATIONS: dict[str, tuple[str, Callable[[Path, ModelCard], AbstractContextManager[Add]]]] = {
    "coco": ("coco.json", _coco),
    "labelme": ("labelme", _labelme),
    "cvat": ("cvat.zip", _cvat),
    "labelstudio": ("labelstudio.json", _label_studio),
}
"""Annotation outputs by name: file or folder, and a context manager that yields a function to add an image."""

POLYGONS = ("coco", "labelme")


def check_annotations(kinds: Collection[str], card: ModelCard, names: Iterable[str]) -> None:
    """Raise DataError if annotations cannot be written, or could not be read back. names: result names."""
    if not set(POLYGONS).isdisjoint(kinds):
        check_polygons()
    odd = [name for name in card.classes if kinds and (len(name.splitlines()) != 1 or plain(name) == IGNORE)]
    if "cvat" in kinds:
        odd += [name for name in card.classes if name.strip().startswith("#")]
        odd += [name for name in names if name.encode(errors="ignore").decode() != name]
    if odd:
        reason = f"has several lines, is {IGNORE}, starts with # or is not UTF-8"
        raise DataError(f"--write: the name {odd[0]!r} cannot be read back from {', '.join(kinds)}: it {reason}")
