"""Reads damaged files of one family, in a process of its own: attempt.py FAMILY CASES FOLDER.

A line goes out before each case and one after it, so that a case that ends or stops the process is known.
"""

from __future__ import annotations

import csv
import io
import json
import resource
import shutil
import struct
import sys
import warnings
import zlib
from functools import partial
from pathlib import Path

import decoders
import imagecodecs
import numpy as np
import tifffile
import yaml
from damage import BINARY, TEXT, drawn, huge
from PIL import Image
from scipy.io import savemat

from fuzzyseg.data import DataError, Item, read_dataset
from fuzzyseg.data.annotations import read_annotations, write_dataset
from fuzzyseg.data.check import count_labels, look_at
from fuzzyseg.data.formats import file_size, read_image, read_mask
from fuzzyseg.data.items import Encoding
from fuzzyseg.data.labels import training_labels

CLASSES, VOID, H, W = 4, 255, 12, 10
COLOURS = [(128, 0, 0), (0, 128, 0), (0, 0, 128), (200, 100, 50)]
CODED = Encoding(colours=tuple((*colour, index) for index, colour in enumerate(COLOURS)), text="four colours")
RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, CLASSES, (H // 2, W // 2)).repeat(2, 0).repeat(2, 1).astype(np.uint8)
LABELS[0, :4] = VOID
PHOTO = RNG.integers(0, 256, (H, W, 3)).astype(np.uint8)


def saved(array, kind, **options):
    buffer = io.BytesIO()
    (array if isinstance(array, Image.Image) else Image.fromarray(array)).save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(array, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def palette():
    image = Image.fromarray(LABELS)
    image.putpalette([value for index in range(256) for value in (index * 7 % 256, index * 13 % 256, index)])
    return image


def coloured(bands):
    table = np.zeros((256, bands), np.uint8)
    table[:CLASSES, :3] = COLOURS
    if bands == 4:
        table[:CLASSES, 3] = 255
    else:
        table[VOID] = 0, 128, 0  # files without opacity have no void
    return table[LABELS]


def sbd():
    buffer = io.BytesIO()
    value = np.zeros((1, 1), dtype=[("Segmentation", object)])
    value[0, 0] = (LABELS,)
    savemat(buffer, {"GTcls": value}, do_compression=True)
    return buffer.getvalue()


def by_colour(array):
    """Labels of colours, None where a colour means nothing."""
    labels = np.full(array.shape[:2], -1)
    for index, colour in enumerate(COLOURS):
        labels[(array[..., :3] == colour).all(-1)] = index
    if array.shape[2] == 4:
        labels[array[..., 3] < 255] = -1
        labels[array[..., 3] == 0] = VOID
    return None if (labels < 0).any() else labels


def by_value(array):
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    known = (array == VOID) | ((array >= 0) & (array < CLASSES))
    return array if known.all() else None


MASKS = {
    "index.png": (saved(LABELS, "PNG"), None, decoders.png, by_value),
    "palette.png": (saved(palette(), "PNG"), None, decoders.png, by_value),
    "deep.png": (saved(LABELS.astype(np.uint16), "PNG"), None, decoders.png, by_value),
    "rgb.png": (saved(coloured(3), "PNG"), CODED, decoders.png, by_colour),
    "rgba.png": (saved(coloured(4), "PNG"), CODED, decoders.png, by_colour),
    "plain.tif": (tiff(LABELS), None, decoders.tiff, by_value),
    "packed.tif": (tiff(LABELS, compression="zlib"), None, decoders.tiff, by_value),
    "deep.tif": (tiff(LABELS.astype(np.uint16), compression="lzw"), None, decoders.tiff, by_value),
    "index.npy": (npy(LABELS), None, decoders.npy, by_value),
    "wide.npy": (npy(LABELS.astype(np.int32)), None, decoders.npy, by_value),
    "index.bmp": (saved(LABELS, "BMP"), None, decoders.bmp, by_value),
    "rgb.webp": (saved(coloured(3), "WEBP", lossless=True), CODED, decoders.webp, by_colour),
    "sbd.mat": (sbd(), None, None, by_value),
}
"""File name -> content, encoding, a decoder of others, what its pixels mean (None: nothing)."""


def turned(array):
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(array, "JPEG", exif=exif, quality=95)


IMAGES = {
    "photo.jpg": (saved(PHOTO, "JPEG", quality=95), 3, None),
    "turned.jpg": (turned(PHOTO), 3, None),
    "print.jpg": (saved(Image.fromarray(PHOTO).convert("CMYK"), "JPEG"), 3, None),
    "photo.png": (saved(PHOTO, "PNG"), 3, decoders.png),
    "alpha.png": (saved(np.dstack([PHOTO, PHOTO[..., 0]]), "PNG"), 4, decoders.png),
    "grey.png": (saved(PHOTO[..., 0], "PNG"), 1, decoders.png),
    "deep.png": (bytes(imagecodecs.png_encode(PHOTO.astype(np.uint16) * 257)), 3, None),
    "photo.bmp": (saved(PHOTO, "BMP"), 3, decoders.bmp),
    "photo.webp": (saved(PHOTO, "WEBP", lossless=True), 3, decoders.webp),
    "bands.tif": (tiff(np.dstack([PHOTO, PHOTO])[..., :5].astype(np.uint16), photometric="minisblack"), 5, None),
    "photo.tif": (tiff(PHOTO, photometric="rgb", compression="zlib"), 3, decoders.tiff),
    "bands.npy": (npy(np.dstack([PHOTO, PHOTO])), 6, decoders.npy),
    "floats.npy": (npy(PHOTO.astype(np.float32)), 3, None),
}
"""File name -> content, bands asked for, a decoder of others."""


class Wrong(Exception):
    pass


def named(error, *names):
    if not any(name in str(error) for name in names):
        raise Wrong(f"an error that names no file: {error}")


def masks(folder, name, data, source=None):
    encoding, meaning = MASKS[name][1::2]
    decoder = MASKS[source or name][2]
    path = folder / name
    path.write_bytes(data)
    item = Item(path, path, "x", encoding)
    seen, counted = look_at(path, "mask"), count_labels(item, CLASSES, VOID)
    try:
        labels = training_labels(item, classes=CLASSES, ignore_index=VOID)
    except DataError as error:
        named(error, name)
        if counted.problem is None and not counted.strange_pixels:
            raise Wrong("the check says nothing of what training refuses") from None
        named(counted.problem or name, name)
        return "reported"
    if seen.problem is not None or counted.problem is not None or counted.strange_pixels:
        raise Wrong(f"the check complains of what training takes: {seen.problem} {counted}")
    if seen.size != labels.shape:
        raise Wrong(f"sizes {seen.size} and {labels.shape}")
    if file_size(path) != labels.shape:
        raise Wrong(f"the header says {file_size(path)}, the pixels are {labels.shape}")
    original = np.where(LABELS == VOID, 1, LABELS) if encoding is CODED and "rgba" not in name else LABELS
    if np.array_equal(labels, original):
        return "as it was"
    expected = meaning(decoder(data)) if decoder is not None else None
    if expected is None or not np.array_equal(labels, expected):
        raise Wrong(f"labels that are not in the file: {labels.tolist()}")
    return "as it is"


def images(folder, name, data, source=None):
    channels, decoder = IMAGES[name][1], IMAGES[source or name][2]
    path = folder / name
    path.write_bytes(data)
    seen = look_at(path, "image")
    named(seen.problem or name, name)
    try:
        pixels = read_image(path, channels)
    except DataError as error:
        named(error, name)
        return "reported"
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != channels or 0 in pixels.shape:
        raise Wrong(f"{pixels.dtype} {pixels.shape}")
    if seen.problem is not None or seen.size != pixels.shape[:2] or file_size(path) != pixels.shape[:2]:
        raise Wrong(f"the check says {seen}, the header {file_size(path)}; read {pixels.shape}")
    path.write_bytes(IMAGES[name][0])
    if np.array_equal(pixels, read_image(path, channels)):
        return "as it was"
    if decoder is None:
        return "as it is"
    try:
        expected = decoder(data)
    except Exception:  # one decoder refuses what another takes, as it may with pictures
        return "as it is"
    expected = expected[..., None] if expected.ndim == 2 else expected
    if expected.shape[2] in (2, 4) and expected.shape[2] != channels:
        expected = expected[..., :-1]
    if expected.shape[2] == 1 and channels == 3:
        expected = expected.repeat(3, 2)
    if expected.shape == pixels.shape and not np.array_equal(pixels, expected):
        raise Wrong("pixels that are not in the file")
    return "as it is"


def huge_sizes(folder, name, data):
    """Headers that promise more than can be decoded are refused, and no memory is taken for them."""
    path = folder / name
    path.write_bytes(data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    reads = [lambda: read_image(path, 3), lambda: read_mask(path, colours=True, lossy=True)]
    for read in reads if path.suffix != ".mat" else reads[1:]:
        try:
            read()
        except DataError as error:
            named(error, name)
        else:
            raise Wrong("was read")
    if look_at(path, "image").problem is None or look_at(path, "mask").problem is None:
        raise Wrong("the check says nothing")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    if grown > 300_000:  # KiB; 60,000 x 60,000 pixels are ten times this
        raise Wrong(f"took {grown} KiB")
    return "reported"


NAMES = ["a", "b", "c", "d"]


def pictures(folder):
    """Four images and masks whose labels differ: a mask that is given to another image is noticed."""
    for place, name in enumerate(NAMES):
        for kind, array in (("photos", PHOTO), ("labels", np.full((H, W), place, np.uint8))):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(folder / kind / f"{name}.png")


PAIRS = [(f"photos/{name}.png", f"labels/{name}.png") for name in NAMES]
CLASS_TABLE = "name,r,g,b\n" + "".join(f"class {i},{r},{g},{b}\n" for i, (r, g, b) in enumerate(COLOURS))
DESCRIPTION = "classes: [sky, road, car, tree]\nignore_index: 255\nimages: photos\nmasks: labels\n"
LISTS = {
    "manifest.csv": "image,mask,split\n" + "".join(f"{image},{mask},train\n" for image, mask in PAIRS),
    "manifest.jsonl": "".join(json.dumps({"image": image, "mask": mask}) + "\n" for image, mask in PAIRS),
    "train.txt": "".join(f"{image} {mask}\n" for image, mask in PAIRS),
    "dataset.yaml": DESCRIPTION,
}


def said_pairs(name, data):
    """What a list says, read in the plainest way."""
    text = data.decode("utf-8-sig")
    if name == "manifest.csv":
        rows = list(csv.DictReader(io.StringIO(text)))
        return [(row["image"].strip(), (row.get("mask") or "").strip()) for row in rows]
    if name == "manifest.jsonl":
        rows = [json.loads(line) for line in text.splitlines() if line.strip()]
        return [(row["image"].strip(), (row.get("mask") or "").strip()) for row in rows]
    lines = [line.partition(" #")[0].split() for line in text.splitlines() if line.strip() and line.strip()[0] != "#"]
    return [(line[0], line[1] if len(line) > 1 else "") for line in lines]


def lists(folder, name, data):
    root = folder / f"{name}.data"
    if not root.exists():
        pictures(root)
        if name != "dataset.yaml":
            (root / "dataset.yaml").write_text(DESCRIPTION.partition("images")[0])
    (root / name).write_bytes(data)
    try:
        dataset = read_dataset(root)
        items = [item for part in (dataset.train, dataset.val, dataset.test) for item in part or []]
        labels = {}
        for item in items:
            if item.mask is not None:
                labels[item.image.stem] = training_labels(
                    item, classes=len(dataset.classes), ignore_index=dataset.ignore_index
                )
    except DataError as error:
        # Where the masks no longer fit what is said of them, the mask is what is named.
        named(error, name, *(["labels", "is recognised in it"] if name == "dataset.yaml" else []))
        return "reported"
    if name == "dataset.yaml":
        said = yaml.safe_load(data.decode()) or {}
        same = all(said.get(key) == value for key, value in yaml.safe_load(DESCRIPTION).items())
        expected = {stem: np.full((H, W), place) for place, stem in enumerate(NAMES)}
        if same and any(not np.array_equal(labels[stem], expected[stem]) for stem in NAMES):
            raise Wrong("other labels from the same description")
        return "as it is"
    found = {(item.image.resolve(), item.mask.resolve() if item.mask else None) for item in items}
    said = {
        ((root / image.lstrip("/")).resolve(), (root / mask.lstrip("/")).resolve() if mask else None)
        for image, mask in said_pairs(name, data)
    }
    if not found <= said and not found <= {(image, None) for image, _ in said} | said:
        raise Wrong(f"pairs that the file does not name: {found - said}")
    return "as it is"


def rectangle(label, x0, y0, x1, y1):
    return {"label": label, "points": [[x0, y0], [x1, y1]], "shape_type": "rectangle"}


SHAPES = [rectangle("road", 0, 6, 9, 11), rectangle("car", 2, 5, 5, 8), rectangle("tree", 7, 0, 9, 4)]
LABELME = json.dumps(
    {"version": "5.0", "shapes": SHAPES, "imagePath": "a.png", "imageData": None, "imageHeight": H, "imageWidth": W}
)
COCO = json.dumps(
    {
        "images": [{"id": 7, "file_name": "a.png", "height": H, "width": W}],
        "categories": [{"id": 1, "name": "road"}, {"id": 2, "name": "car"}, {"id": 3, "name": "tree"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 1, "iscrowd": 1, "segmentation": {"size": [H, W], "counts": counts}}
            for counts in ([60, 60], [0, 30, 90])
        ]
        + [{"id": 3, "image_id": 7, "category_id": 3, "iscrowd": 0, "segmentation": [[1, 1, 6, 1, 6, 7, 1, 7]]}],
    }
)
LABELMAP = "# label:color_rgb:parts:actions\n" + "".join(
    f"{name}:{r},{g},{b}::\n" for name, (r, g, b) in zip(("road", "car", "tree", "sky"), COLOURS, strict=True)
)
ORDER = ["background", "road", "car", "tree"]
ANNOTATIONS = {"a.json": LABELME, "instances.json": COCO, "labelmap.txt": LABELMAP, "mask.png": ""}


def rectangles(content):
    """LabelMe's rectangles drawn pixel by pixel; None where a corner is between pixels or the names are others."""
    mask = np.zeros((H, W), np.uint8)
    for shape in content["shapes"]:
        if shape.get("shape_type") != "rectangle" or shape["label"] not in ORDER:
            return None
        corners = [value for point in shape["points"] for value in point]
        if not all(isinstance(value, int) for value in corners):
            return None
        (x0, x1), (y0, y1) = sorted(corners[::2]), sorted(corners[1::2])
        for y in range(max(0, y0), min(H - 1, y1) + 1):
            for x in range(max(0, x0), min(W - 1, x1) + 1):
                mask[y, x] = ORDER.index(shape["label"])
    return mask


def annotations(folder, name, data):
    source, out = folder / f"{name}.source", folder / f"{name}.out"
    shutil.rmtree(out, ignore_errors=True)
    if not source.exists():
        source.mkdir(parents=True)
        if name in ("labelmap.txt", "mask.png"):
            for kind, array in (("JPEGImages", PHOTO), ("SegmentationClass", coloured(3))):
                (source / kind).mkdir()
                Image.fromarray(array).save(source / kind / "mask.png")
            (source / "labelmap.txt").write_text(LABELMAP)
        else:
            Image.fromarray(PHOTO).save(source / "a.png")
            (source / "labels.txt").write_text("\n".join(ORDER))
    (source / ("SegmentationClass/mask.png" if name == "mask.png" else name)).write_bytes(data)
    try:
        found = read_annotations(source, ORDER if name.endswith("json") else None)
        written, failures = write_dataset(found, out)
    except DataError as error:
        named(error, name)
        return "reported"
    for failure in failures:
        named(failure, name, "mask.png" if name == "labelmap.txt" else name)
    outside = [path for path in folder.rglob("*") if path.is_file() and path.suffix == ".png" and "evil" in path.name]
    if outside:
        raise Wrong(f"wrote {outside}")
    if failures or not written["masks"]:
        return "reported"
    mask = np.array(Image.open(next((out / "masks").rglob("*.png"))))
    if mask.shape != (H, W) or not set(np.unique(mask).tolist()) <= {*range(len(found.classes)), VOID}:
        raise Wrong(f"values {np.unique(mask)} of shape {mask.shape}")
    expected = None
    if name == "a.json":
        expected = rectangles(json.loads(data.decode("utf-8-sig")))
    elif name == "mask.png":
        labels = by_colour(decoders.png(data))
        if labels is None:
            raise Wrong("colours that are in no label map were taken")
        expected = np.array([found.classes.index(n) for n in ("road", "car", "tree", "sky")])[labels]
    elif data == ANNOTATIONS[name].encode():
        return "as it was"
    if expected is not None and not np.array_equal(mask, expected):
        raise Wrong(f"labels that the file does not hold: {mask.tolist()}")
    return "as it is"


FAMILIES = {
    "masks": (masks, {name: row[0] for name, row in MASKS.items()}, BINARY),
    "images": (images, {name: row[0] for name, row in IMAGES.items()}, BINARY),
    "lists": (lists, {name: text.encode() for name, text in LISTS.items()}, TEXT),
    "annotations": (
        annotations,
        {name: text.encode() or saved(coloured(3), "PNG") for name, text in ANNOTATIONS.items()},
        TEXT,
    ),
}


def wrong_suffixes():
    """Every file under every other suffix."""
    tables = [(masks, MASKS), (images, IMAGES)]
    for attempt, table in tables:
        for name in table:
            for other, row in table.items():
                if Path(name).suffix != Path(other).suffix:
                    yield f"{other} as {name}", partial(attempt, source=other), name, row[0]


def oversized():
    """Huge sizes in the header of each kind of file, and a file that unpacks to a hundred times its size."""
    for table in (MASKS, IMAGES):
        for name, row in table.items():
            suffix = Path(name).suffix
            if suffix != ".mat" and not (suffix == ".webp" and row[0][12:16] != b"VP8L"):
                yield f"huge {name}", huge_sizes, name, huge(row[0], suffix)
    side = 40_000
    rows = zlib.compressobj(9)
    packed = b"".join(rows.compress(bytes(side + 1)) for _ in range(side)) + rows.flush()
    parts = [(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)), (b"IDAT", packed), (b"IEND", b"")]
    bomb = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in parts
    )
    yield "bomb.png", huge_sizes, "bomb.png", bomb
    rows = zlib.compressobj(9)
    packed = b"".join(rows.compress(bytes(2**20)) for _ in range(1024)) + rows.flush()
    head = b"MATLAB 5.0".ljust(124) + struct.pack("<H", 0x0100) + b"IM"
    yield "bomb.mat", huge_sizes, "bomb.mat", head + struct.pack("<II", 15, len(packed)) + packed


def cases(family, count):
    """Name, what is tried, file name, content."""
    if family == "special":
        yield from wrong_suffixes()
        yield from oversized()
        return
    attempt, files, ways = FAMILIES[family]
    for number in range(count):
        name = list(files)[number % len(files)]
        place = number // len(files)
        way = ways[place % len(ways)].__name__
        yield f"{number} {way} {name}", attempt, name, drawn(ways, files[name], place, name)


def main(family, count, folder):
    warnings.simplefilter("ignore")
    for case, attempt, name, data in cases(family, count):
        sys.stdout.write(f"begin {case}\n")
        sys.stdout.flush()
        try:
            verdict = attempt(folder, name, data)
        except Exception as error:
            verdict = f"WRONG {type(error).__name__}: {error}".replace("\n", " ")
        sys.stdout.write(f"end {verdict}\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
