"""Lists, tables, descriptions and annotations, and what is tried with damaged ones."""

from __future__ import annotations

import csv
import io
import json
import shutil

import decoders
import numpy as np
import yaml
from binary import COLOURS, PHOTO, VOID, H, W, Wrong, by_colour, coloured, named
from PIL import Image

from fuzzyseg.data import DataError, read_dataset
from fuzzyseg.data.annotations import read_annotations, write_dataset
from fuzzyseg.data.labels.decode import training_labels

NAMES = ["a", "b", "c", "d"]


def pictures(folder, in_colour=False):
    """Four images and masks whose labels differ: a mask that is given to another image is noticed."""
    for place, name in enumerate(NAMES):
        mask = np.full((H, W), place, np.uint8)
        mask = np.array(COLOURS, np.uint8)[mask] if in_colour else mask
        for kind, array in (("photos", PHOTO), ("labels", mask)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(folder / kind / f"{name}.png")


PAIRS = [(f"photos/{name}.png", f"labels/{name}.png") for name in NAMES]
TABLE = "name,r,g,b\n" + "".join(f"class {i},{r},{g},{b}\n" for i, (r, g, b) in enumerate(COLOURS))
DESCRIPTION = "classes: [sky, road, car, tree]\nignore_index: 255\nimages: photos\nmasks: labels\n"
LISTS = {
    "manifest.csv": "image,mask,split\n" + "".join(f"{image},{mask},train\n" for image, mask in PAIRS),
    "manifest.jsonl": "".join(json.dumps({"image": image, "mask": mask}) + "\n" for image, mask in PAIRS),
    "train.txt": "".join(f"{image} {mask}\n" for image, mask in PAIRS),
    "dataset.yaml": DESCRIPTION,
    "classes.csv": TABLE,
}


def said_pairs(name, data):
    """What a list says, read in the plainest way."""
    text = data.decode("utf-8-sig", "surrogateescape")
    if name == "manifest.csv":
        rows = list(csv.DictReader(io.StringIO(text)))
        return [(row["image"].strip(), (row.get("mask") or "").strip()) for row in rows]
    if name == "manifest.jsonl":
        rows = [json.loads(line) for line in text.splitlines() if line.strip()]
        return [(row["image"].strip(), (row.get("mask") or "").strip()) for row in rows]
    lines = [line.partition(" #")[0].split() for line in text.splitlines() if line.strip() and line.strip()[0] != "#"]
    return [(line[0], line[1] if len(line) > 1 else "") for line in lines]


def table(data, classes, labels):
    """Each mask has one colour, and its class must have the name that stands beside it, or one made of the colour."""
    rows = list(csv.reader(io.StringIO(data.decode("utf-8-sig", errors="replace"))))
    for place, (stem, colour) in enumerate(zip(NAMES, COLOURS, strict=True)):
        names = {row[0].strip() for row in rows if [cell.strip() for cell in row[1:4]] == [*map(str, colour)]}
        (label,) = np.unique(labels[stem]).tolist()
        if classes[label] not in names | {"colour_{}_{}_{}".format(*colour)}:
            raise Wrong(f"{stem} is {classes[label]}, by the table {names}; place {place}")
    return "as it is"


def lists(folder, name, data):
    root = folder / f"{name}.data"
    if not root.exists():
        pictures(root, in_colour=name == "classes.csv")
        keys = {"dataset.yaml": "", "classes.csv": DESCRIPTION.partition("255\n")[2]}
        (root / "dataset.yaml").write_text(keys.get(name, DESCRIPTION.partition("images")[0]))
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
    if name == "classes.csv":
        return table(data, dataset.classes, labels)
    if name == "dataset.yaml":
        said = yaml.safe_load(data.decode()) or {}
        same = all(said.get(key) == value for key, value in yaml.safe_load(DESCRIPTION).items())
        expected = {stem: np.full((H, W), place) for place, stem in enumerate(NAMES)}
        if same and any(not np.array_equal(labels[stem], expected[stem]) for stem in NAMES):
            raise Wrong("other labels from the same description")
        return "as it is"
    result = {(item.image.resolve(), item.mask.resolve() if item.mask else None) for item in items}
    said = {
        ((root / image.lstrip("/")).resolve(), (root / mask.lstrip("/")).resolve() if mask else None)
        for image, mask in said_pairs(name, data)
    }
    if not result <= said and not result <= {(image, None) for image, _ in said} | said:
        raise Wrong(f"pairs that the file does not name: {result - said}")
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
        result = read_annotations(source, ORDER if name.endswith("json") else None)
        written, failures = write_dataset(result, out)
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
    if mask.shape != (H, W) or not set(np.unique(mask).tolist()) <= {*range(len(result.classes)), VOID}:
        raise Wrong(f"values {np.unique(mask)} of shape {mask.shape}")
    expected = None
    if name == "a.json":
        expected = rectangles(json.loads(data.decode("utf-8-sig")))
    elif name == "mask.png":
        labels = by_colour(decoders.png(data))
        if labels is None:
            raise Wrong("colours that are in no label map were taken")
        expected = np.array([result.classes.index(n) for n in ("road", "car", "tree", "sky")])[labels]
    elif data == ANNOTATIONS[name].encode():
        return "as it was"
    if expected is not None and not np.array_equal(mask, expected):
        raise Wrong(f"labels that the file does not hold: {mask.tolist()}")
    return "as it is"
