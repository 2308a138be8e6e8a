"""Bad data sets: damaged, missing and contradicting files of a folder, a table or lists, and bad annotations."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from chaos.place import Bad, Place, cut

Change = Callable[[Place, Path], str]
"""Spoils a copy of the good data set, and says how."""


def draw(place: Place) -> Bad:
    kinds = (_folder, _description, _table, _class_table, _root, _annotations)
    return place.rng.choices(kinds, (9, 5, 3, 2, 1, 3))[0](place)


def _command(place: Place, data: Path) -> list[str]:
    """A command that reads all labels: a check, or a training of one step."""
    return ["check", str(data)] if place.rng.random() < 0.5 else place.train(data=data)


def _folder(place: Place) -> Bad:
    data = place.copy("data")
    what = place.rng.choice(FILES)(place, data)
    reads_pixels = "image content" in what  # a training may not draw the image
    argv = ["check", str(data)] if reads_pixels else _command(place, data)
    return Bad(what, argv, nobody="unreadable" in what)


def _image(place: Place, data: Path) -> Path:
    return place.rng.choice(sorted((data / "images").rglob("*.png")))


def _mask(place: Place, data: Path) -> Path:
    return place.rng.choice(sorted((data / "masks").rglob("*.png")))


def _spoil_image(place: Place, data: Path) -> str:
    path, rng = _image(place, data), place.rng
    contents = {
        "truncated": cut(path.read_bytes(), rng), "empty": b"", "text": b"not an image", "noise": rng.randbytes(500),
        "header alone": path.read_bytes()[:8], "HTML": b"<!DOCTYPE html><html></html>", "nulls": b"\0" * 900,
        "LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "damaged": path.read_bytes()[:60] + rng.randbytes(200) + path.read_bytes()[260:],
    }  # fmt: skip
    what = rng.choice(list(contents))
    path.write_bytes(contents[what])
    return f"image content: {what}"


def _spoil_mask(place: Place, data: Path) -> str:
    path, rng = _mask(place, data), place.rng
    contents = {
        "truncated": cut(path.read_bytes(), rng), "empty": b"", "text": b"not an image", "noise": rng.randbytes(500),
        "header alone": path.read_bytes()[:8], "nulls": b"\0" * 900,
    }  # fmt: skip
    what = rng.choice(list(contents))
    path.write_bytes(contents[what])
    return f"image content of a mask: {what}"


def _mask_values(place: Place, data: Path) -> str:
    path, rng = _mask(place, data), place.rng
    with Image.open(path) as image:
        array = np.array(image)
    kind = rng.choice(("value", "16 bits", "32 bits", "colours", "size", "float", "channels"))
    if kind == "value":
        array[rng.randrange(2, array.shape[0]), rng.randrange(array.shape[1])] = rng.randint(3, 254)
    elif kind == "16 bits":
        array = array.astype(np.uint16)
        array[5, 5] = rng.randint(256, 65535)
    elif kind == "32 bits":
        array = array.astype(np.int32)
        array[5, 5] = rng.randint(256, 10**6)
    elif kind == "colours":
        array = np.random.default_rng(rng.randrange(2**32)).integers(0, 255, (*array.shape, 3)).astype(np.uint8)
    elif kind == "size":
        array = array[: rng.randint(1, array.shape[0] - 1), : rng.randint(1, array.shape[1])]
    elif kind == "channels":
        array = np.stack([array] * 4, -1) + np.arange(4, dtype=np.uint8)
    elif kind == "float":
        array = array.astype(np.float32) + 0.5
    if array.dtype in (np.int32, np.float32):  # not in PNG
        path.unlink()
        path = path.with_suffix(".tif")
    Image.fromarray(array).save(path)
    return f"mask: {kind}"


def _instead(place: Place, data: Path) -> str:
    """Something else in place of an image that has a mask, so that the mask has no image."""
    mask, rng = _mask(place, data), place.rng
    path = data / "images" / mask.relative_to(data / "masks")
    path.unlink()
    what = rng.choice(("nothing", "folder", "link to itself", "link to nothing", "link to its folder", "pipe"))
    if what == "folder":
        path.mkdir()
    elif what == "link to itself":
        path.symlink_to(path.name)
    elif what == "link to nothing":
        path.symlink_to("/no/such/file.png")
    elif what == "link to its folder":
        path.symlink_to(".")
    elif what == "pipe":
        os.mkfifo(path)
    return f"{what} in place of an image"


def _renamed_mask(place: Place, data: Path) -> str:
    path = _mask(place, data)
    name = place.rng.choice((f"{path.stem}x", path.stem.upper(), "ünïcode日本", " ", "-rf", "a" * 200, "im99", "%s%n"))
    path.rename(path.with_name(f"{name}.png"))
    return f"mask named {name!r}"


def _unreadable(place: Place, data: Path) -> str:
    path = place.rng.choice((_image, _mask))(place, data)
    path = place.rng.choice((path, path.parent, data / "dataset.yaml"))
    path.chmod(0)
    return f"unreadable {path.name}"


def _twice(place: Place, data: Path) -> str:
    path = _image(place, data)
    path.with_suffix(".jpg").write_bytes(path.read_bytes())
    return "two images of one name"


def _empty(place: Place, data: Path) -> str:
    paths = {
        "no images": sorted((data / "images").rglob("*.png")),
        "no masks": sorted((data / "masks").rglob("*.png")),
        "no training images": sorted((data / "images" / "train").rglob("*.png")),
        "no training masks": sorted((data / "masks" / "train").rglob("*.png")),
        "nothing": [path for path in data.rglob("*") if path.is_file()],
    }
    what = place.rng.choice(list(paths))
    for path in paths[what]:
        path.unlink()
    return what


FILES: tuple[Change, ...] = (
    *(_spoil_image, _spoil_mask, _mask_values, _mask_values), _instead, _renamed_mask, _unreadable, _twice, _empty,
)  # fmt: skip

DESCRIPTIONS = (
    "classes: [low, middle]\n",
    "classes: [low]\n",
    "classes: []\n",
    "classes: [low, low, high]\n",
    "classes: [1, 2, 3]\n",
    "classes: low\n",
    "classes: {low: 1}\n",
    "classes: [[low], middle, high]\n",
    "classes: [null, a, b]\n",
    "classes: [low, middle, high]\ncolours: [[0,0,0]]\n",
    "classes: [low, middle, high]\ncolours: [[0,0,0],[1,1,1],[0,0,300]]\n",
    "classes: [low, middle, high]\ncolours: [[0,0,0],[1,1,1],[0,0]]\n",
    "classes: [low, middle, high]\ncolours: [[0,0,0],[1,1,1],[1,1,1]]\nencoding: colour\n",
    "classes: [low, middle, high]\ncolours: nonsense\n",
    "classes: [low, middle, high]\ncolours: {low: [0,0,0]}\n",
    "classes: [low, middle, high]\nignore_index: nonsense\n",
    "classes: [low, middle, high]\nignore_index: 70000\n",
    "classes: [low, middle, high]\nignore_index: -40000\n",
    "classes: [low, middle, high]\nignore_index: .nan\n",
    "classes: [low, middle, high]\nignore_index: []\n",
    "classes: [low, middle, high]\nignore_index: [255, 1.5]\n",
    "classes: [low, middle, high]\nencoding: nonsense\n",
    "classes: [low, middle, high]\nencoding: colour\n",
    "classes: [low, middle, high]\nencoding: binary\n",
    "classes: [low, middle, high]\nvalues: {low: 0, middle: 1}\n",
    "classes: [low, middle, high]\nvalues: {low: 0, middle: 1, high: 1}\nignore_index: 255\n",
    "classes: [low, middle, high]\nvalues: {low: 0, middle: 1, high: 99999999}\n",
    "classes: [low, middle, high]\nvalues: [0, 1, 2]\n",
    "classes: [low, middle, high]\nmerge: {x: [low, nothing]}\n",
    "classes: [low, middle, high]\nmerge: [low, high]\n",
    "classes: [low, middle, high]\nmerge: {x: low}\n",
    "classes: [low, middle, high]\nmerge: {all: [low, middle, high]}\n",
    "classes: [low, middle, high]\nignore: [nothing]\n",
    "classes: [low, middle, high]\nignore: low\n",
    "classes: [low, middle, high]\nignore: [low, middle, high]\n",
    "classes: [low, middle, high]\nlists: {train: no_such.txt}\n",
    "classes: [low, middle, high]\nlists: {training: a.txt}\n",
    "classes: [low, middle, high]\nlists: {}\n",
    "classes: [low, middle, high]\nlists: [a.txt]\n",
    "classes: [low, middle, high]\nimages: no/such\nmasks: masks\n",
    "classes: [low, middle, high]\nimages: images\nmasks: no/such\n",
    "classes: [low, middle, high]\nimages: ''\n",
    "classes: [low, middle, high]\nimages: [a]\n",
    'classes: [low, middle, high]\nimages: "a\\0b"\nmasks: masks\n',
    "classes: [low, middle, high]\nreduce_zero_label: maybe\n",
    "classes: [low, middle, high]\nreduce_zero_label: true\nvalues: {low: 1, middle: 2, high: 3}\n",
    "classes: [low, middle, high]\nlicence: [1]\n",
    "classes: [low, middle, high]\nclases: [a]\n",
    "classes: [low, middle, high]\n1: 2\n",
    "classes: [low, middle, high]\nnull: 2\n",
    "classes: [low, middle, high]\nclasses: [low, middle, high]\n",
    "classes: [low, middle, high]\nignore_colours: [[1,2]]\n",
    "[low, middle, high]\n",
    "words\n",
    "42\n",
    "classes: [low, middle\n",
    "classes: !!python/object/apply:os.system ['touch {pwned}']\n",
    "classes: &a [*a, low]\n",
    "classes: &a [*a, *a]\nignore: *a\n",
    "{[1]: 2}\n",
    "<<: 5\n",
    "ignore_index: !!int ''\n",
    "reduce_zero_label: !!bool x\n",
    "ignore_index: 2020-99-99\n",
    "ignore_index: !!int abc\n",
    "ignore_index: !!timestamp x\n",
    "ignore_index: !!float x\n",
    "classes: !!binary '***'\n",
    "\tclasses: [a, b]\n",
    'classes: [low, middle, high]\nlicence: "\\q"\n',
)


def _description(place: Place) -> Bad:
    data, rng = place.copy("data"), place.rng
    made: dict[str, str | bytes] = {
        "deep": "classes: " + "[" * rng.randint(100, 20000),
        "deep and closed": "classes: " + "[" * (n := rng.randint(100, 3000)) + "]" * n,
        "long number": "ignore_index: " + "9" * rng.randint(4301, 9000),
        "many classes": "classes: [" + ", ".join(f"c{number}" for number in range(rng.randint(256, 3000))) + "]",
        "laughs": "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
            f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
        "bytes": bytes([0x80, 0xff]) + rng.randbytes(100),
        "nulls": b"\0" * 50,
    }  # fmt: skip
    what = rng.choice([*made, *["text"] * 3 * len(made)])
    text = rng.choice(DESCRIPTIONS).replace("{pwned}", str(place.pwned)) if what == "text" else made[what]
    (data / "dataset.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return Bad(f"dataset.yaml: {text!r}"[:160] if what == "text" else f"dataset.yaml: {what}", _command(place, data))


def _table(place: Place) -> Bad:
    """A manifest or a list with an error in one line."""
    data, rng = place.copy("data"), place.rng
    kind = rng.choice(("csv", "jsonl", "list"))
    masks = sorted((data / "masks" / "train").iterdir())
    rows = [(f"images/train/{mask.name}", f"masks/train/{mask.name}") for mask in masks]
    place_of = rng.randrange(len(rows))
    bad = {
        "missing image": ("images/train/none.png", rows[0][1]), "missing mask": (rows[0][0], "masks/none.png"),
        "folder": ("images/train", rows[0][1]), "outside": ("../../../../../etc/passwd", rows[0][1]),
        "same again": rows[place_of - 1], "exchanged": (rows[0][0] + "x", rows[1][1]), "null": ("a\0b.png", "c.png"),
        "long": ("x" * 5000 + ".png", rows[0][1]), "table as image": (f"manifest.{kind}", rows[0][1]),
    }  # fmt: skip
    if kind == "list":  # which may name an image twice
        del bad["same again"]
    what = rng.choice(list(bad))
    rows[place_of] = bad[what]
    if kind == "list":
        text = "".join(f"{image} {mask}\n" for image, mask in rows)
        path = data / "train.txt"
        (data / "dataset.yaml").write_text("classes: [low, middle, high]\nlists: {train: train.txt}\n")
    elif kind == "csv":
        heads = ("image,mask,split", "picture,mask,split", "image;mask;split", "", "image,image,mask", "\ufeff,,")
        head, split = heads[0], "train"
        if rng.random() < 0.5:
            what, rows = "header", rows[:place_of]
            head = rng.choice((heads[1], heads[3], heads[5]))
        elif rng.random() < 0.3:
            what, split = "split", "holdout"
        text = "\n".join([head, *(f"{image},{mask},{split}" for image, mask in rows)])
        text += '\n"unclosed,' * (what == "split")
        path = data / "manifest.csv"
    else:
        lines = [json.dumps({"image": image, "mask": mask}) for image, mask in rows]
        if rng.random() < 0.5:
            what = rng.choice(("not JSON", "deep", "number", "list", "types", "nan"))
            lines[place_of] = {
                "not JSON": "{image: x", "deep": "[" * 9000, "number": "5", "list": "[1]", "types": '{"image": 5}',
                "nan": '{"image": NaN}',
            }[what]  # fmt: skip
        text, path = "\n".join(lines), data / "manifest.jsonl"
    path.write_text(text)
    root = data if kind == "list" else path
    layout = ["data.layout=lists"] if kind == "list" else []
    unread = what in ("outside", "table as image")  # a training of one step may not draw the image
    return Bad(f"{kind}: {what}", [*(["check", str(root)] if unread else _command(place, root)), *layout])


TABLES = (
    "name,r,g,b\nlow,0,0,0\nmiddle,1,1,1\nhigh,2,2,300\n",
    "name,r,g,b\nlow,0,0,0\nmiddle,0,0,0\nhigh,2,2,2\n",
    "name,r,g,b\nlow,0,0,0\nlow,1,1,1\n",
    "name,r,g,b\nlow,0,0\nmiddle,1,1\n",
    "name,r,g,b\nlow,a,b,c\n",
    "name,r,g,b\n",
    "name,r,g,b\nlow,0,0,-1\nmiddle,1,1,1\n",
    "name,r,g,b\nlow,0.5,0,0\nmiddle,1,1,1\n",
    "name;r;g;b\nlow,0,0,0\nmiddle,1,1,1\n",
    "name,r,g,b\n,0,0,0\n,1,1,1\n",
    'name,r,g,b\n"low,0,0,0\nmiddle,1,1,1\n',
    "name,r,g,b\nlow,nan,0,0\nmiddle,1,1,1\n",
    "name,r,g,b\nlow,9999999999999999999999,0,0\nmiddle,1,1,1\n",
    "name,r,g,b\nlow,0,0,0\nother,1,1,1\nhigh,2,2,2\nmore,3,3,3\n",
)


def _class_table(place: Place) -> Bad:
    """A table of classes and colours that is none, or that does not fit the masks, which hold colours."""
    data, rng = place.copy("data"), place.rng
    (data / "dataset.yaml").unlink()
    colours = np.zeros((256, 3), np.uint8)
    colours[:3] = [[10, 20, 30], [40, 50, 60], [70, 80, 90]]
    for path in (data / "masks").rglob("*.png"):
        with Image.open(path) as image:
            array = colours[np.array(image)]
        Image.fromarray(array).save(path)
    text = rng.choice(TABLES)
    (data / "class_dict.csv").write_text(text)
    return Bad(f"class table {text!r}", _command(place, data))


def _root(place: Place) -> Bad:
    rng = place.rng
    kind = rng.choice(("file", "loop", "text", "link", "archive", "folder loop", "deep"))
    path = place.folder / "root"
    if kind == "file":
        path.write_bytes(rng.randbytes(100))
    elif kind == "loop":
        path.symlink_to("root")
    elif kind == "link":
        path.symlink_to("/no/such")
    elif kind == "archive":
        path = place.write("root.zip", b"PK\x03\x04" + rng.randbytes(50))
    elif kind == "folder loop":
        path.mkdir()
        (path / "images").symlink_to("..")
        (path / "masks").symlink_to(".")
    elif kind == "deep":
        path.joinpath(*["d"] * 200).mkdir(parents=True)
    else:
        names = ("日本/語", "-", "~nobody/x", "$HOME", "a\nb", "\x1b[31mred", "%s", "..." * 99, "*", "nul")
        path = Path(rng.choice(names))
    verb = rng.choice(("check", "split", "train"))
    argv = {"check": ["check", "--", str(path)], "split": ["split", "--out", str(place.folder / "s"), "--", str(path)]}
    return Bad(f"root: {kind} {path.name!r}", argv.get(verb) or place.train(data=path))


def _labelme(**change: object) -> dict[str, object]:
    shape = {"label": "low", "points": [[1, 1], [9, 1], [5, 9]], "shape_type": "polygon", "group_id": None, "flags": {}}
    whole = {"version": "5.0", "flags": {}, "shapes": [shape], "imagePath": "im00.png", "imageData": None,
             "imageHeight": 24, "imageWidth": 32}  # fmt: skip
    return whole | {"shapes": [shape | {key.removeprefix("shape_"): value for key, value in change.items()
                                        if key.startswith("shape_")}],
                    **{key: value for key, value in change.items() if not key.startswith("shape_")}}  # fmt: skip


def _coco(**change: object) -> dict[str, object]:
    whole: dict[str, object] = {
        "images": [{"id": 1, "file_name": "im00.png", "height": 24, "width": 32}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[1, 1, 9, 1, 5, 9]], "iscrowd": 0,
                         "area": 5, "bbox": [1, 1, 8, 8]}],
        "categories": [{"id": 1, "name": "low"}],
    }  # fmt: skip
    for key, value in change.items():
        part, _, name = key.partition("__")
        whole = {**whole, part: [{**whole[part][0], name: value}] if name else value}  # type: ignore[index]
    return whole


ANNOTATIONS: tuple[dict[str, object], ...] = (
    *(_labelme(shape_points=points) for points in ([[1, 1]], [["a", 1], [2, 2], [3, 3]], "x", 5, [[1], [2], [3]],
                                                   [[float("nan"), 1], [2, 2], [3, 3]], [[1e400, 1], [2, 2], [3, 3]])),
    *(_labelme(shape_label=label) for label in (5, [], {"a": 1})),
    *(_labelme(shapes=shapes) for shapes in (5, "x", [5], [[]], {"a": 1})),
    *(_labelme(imagePath=path) for path in ("no.png", 5, "../../../../../../etc/passwd", "a\0b")),
    *(_labelme(imageHeight=25, imageWidth=w) for w in (33, "x")),
    _labelme(shape_shape_type="banana"),
    *(_coco(**{key: value}) for key, value in (
        ("images", 5), ("images", []), ("images", [5]), ("annotations", "x"), ("annotations", [5]), ("categories", 5),
        ("categories", []), ("categories", [{"id": 1}]), ("categories", [{"id": "x", "name": 5}]),
        ("images__file_name", "no.png"), ("images__file_name", 5), ("images__file_name", "/etc/passwd"),
        ("images__id", "x"), ("images__height", 99), ("images__width", -5), ("images__height", "x"),
        ("annotations__image_id", 99), ("annotations__category_id", 99), ("annotations__category_id", "x"),
        ("annotations__segmentation", 5), ("annotations__segmentation", [["a", "b", "c", "d", "e", "f"]]),
        ("annotations__segmentation", [[1, 2, 3]]), ("annotations__segmentation", {"counts": "zz", "size": [1, 2]}),
        ("annotations__segmentation", {"counts": [5, -3], "size": [24, 32]}),
        ("annotations__segmentation", {"counts": [10**12], "size": [10**6, 10**6]}),
        ("annotations__segmentation", [[float("nan")] * 6]),
    )),
)  # fmt: skip


def _annotations(place: Place) -> Bad:
    """A file of LabelMe, COCO or CVAT that has an error, beside good images."""
    rng, source = place.rng, place.folder / "source"
    (source / "JPEGImages").mkdir(parents=True)
    image = (place.good / "data" / "images" / "train" / "im00.png").read_bytes()
    (source / "im00.png").write_bytes(image)
    good = rng.choice((json.dumps(_labelme()), json.dumps(_coco())))
    made: dict[str, str | bytes] = {
        "truncated": good[: rng.randrange(1, len(good) - 1)], "empty": b"", "deep": "[" * 9000, "null": "null",
        "bytes": rng.randbytes(200), "number": "5", "text": '"text"',
        "huge number": good.replace("32", "9" * 5000, 1),
    }  # fmt: skip
    what = rng.choice([*made, *["values"] * 4 * len(made)])
    if what == "values":
        value = rng.choice(ANNOTATIONS)
        made["values"], what = json.dumps(value), f"values {json.dumps(value)}"[:400]
    content = made.get(what, made.get("values", b""))
    (source / "im00.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    return Bad(f"annotations: {what}", ["convert", str(source), "--out", str(place.folder / "converted")])
