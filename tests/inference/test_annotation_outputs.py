"""Round trips with annotation tools: predicted, opened in the tool, converted back; nothing was corrected."""

import json
import os
import re
import shutil
import zipfile
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from fuzzyseg.data import DataError, read_dataset
from fuzzyseg.data.io.image import Levels
from fuzzyseg.data.io.mask import read_mask
from fuzzyseg.data.labels.class_lists import read_names
from fuzzyseg.data.sample import Encoding
from fuzzyseg.experiment import convert
from fuzzyseg.inference import predict_files
from fuzzyseg.inference.outputs import polygons
from fuzzyseg.inference.outputs.annotations import brush_runs
from support.small_images import noise, predictor, write


def blobs(height, width, seed=0):
    """An image whose colours change slowly, so that classes form regions with holes."""
    values = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((height, width, 3)), (3, 3, 0))
    return np.uint8(np.clip(128 + 128 * values / values.std(), 0, 255))


def predicted(folder, names=("a", "far/b"), kinds=(), **card):
    """Images in folder/images, results in folder/out; the masks by name."""
    for seed, name in enumerate(names):
        write(folder / "images" / f"{name}.png", blobs(60 + seed, 80, seed))
    written, failures = predict_files(predictor(**card), folder / "images", folder / "out", write=kinds)
    assert not failures
    assert all(path.is_file() for path in written)
    return {name: read_mask(folder / "out" / "masks" / f"{name}.png") for name in names}


def converted(folder, source, out, names):
    """The masks of what a tool gave back, with the class names that `predict` wrote."""
    convert(source, out, labels=folder / "out" / "labels.txt")
    return {name: read_mask(out / "masks" / f"{name}.png") for name in names}


def unpacked(folder):
    """The CVAT archive, as CVAT exports it with the images."""
    with zipfile.ZipFile(folder / "out" / "cvat.zip") as archive:
        archive.extractall(folder / "cvat")
        assert (folder / "cvat/ImageSets/Segmentation/default.txt").read_text().split() == ["a", "far/b"]
    shutil.copytree(folder / "images", folder / "cvat" / "JPEGImages")
    return folder / "cvat"


NAMED = {"classes": ["road", "background", "car: red"]}


@pytest.mark.parametrize(
    "card",
    [
        {},
        {"colours": [(0, 0, 0), (9, 9, 9), (9, 9, 8)]},
        {"colours": [(7, 7, 7), (0, 0, 0), (7, 7, 7)]},
        NAMED,
        {**NAMED, "colours": [(5, 5, 5), (0, 0, 0), (6, 6, 6)]},
        {**NAMED, "colours": [(0, 0, 0), (5, 5, 5), (6, 6, 6)]},
    ],
    ids=str,
)
def test_cvat_archive(tmp_path, card):
    model, masks = predictor(**card), predicted(tmp_path, kinds=["cvat"], **card)
    result = converted(tmp_path, unpacked(tmp_path), tmp_path / "data", masks)
    for name, mask in masks.items():
        assert len(np.unique(mask)) == 3
        assert np.array_equal(result[name], mask)
    dataset = read_dataset(tmp_path / "data")
    assert dataset.classes == model.classes


def test_pixels_without_data_stay_void(tmp_path):
    image = blobs(40, 50).astype(np.float32) / 255
    image[5:9, 5:20] = np.nan
    (tmp_path / "images").mkdir()
    np.save(tmp_path / "images" / "a.npy", image)
    for names in (["road", "background", "car"], ["road", "grass", "car"]):
        out = tmp_path / names[1] / "out"
        model = predictor(classes=names, levels=Levels((0.0,) * 3, (1.0,) * 3))
        predict_files(model, tmp_path / "images", out, write=["cvat"])
        mask = read_mask(out / "masks/a.png")
        assert (mask == 255).sum() == 4 * 15
        with zipfile.ZipFile(out / "cvat.zip") as archive:
            archive.extractall(out / "cvat")
        write(out / "cvat/images/a.png", noise(40, 50))
        assert np.array_equal(converted(out.parent, out / "cvat", out / "data", ["a"])["a"], mask)


def test_the_index_png_of_a_prediction_is_a_data_set(tmp_path):
    masks = predicted(tmp_path, colours=[(1, 2, 3), (4, 5, 6), (7, 8, 9)])
    shutil.copytree(tmp_path / "out/masks", tmp_path / "masks")
    (tmp_path / "dataset.yaml").write_text("classes: [class0, class1, class2]\n")
    (tmp_path / "out/predictions.jsonl").unlink()
    shutil.rmtree(tmp_path / "out")
    items = {item.name: item for item in read_dataset(tmp_path).train}
    for name, mask in masks.items():
        assert np.array_equal(read_mask(items[name].mask), mask)


def intersection_over_union(found, mask, label):
    """Over the class's objects of at least 20 pixels."""
    objects, _ = ndimage.label(mask == label)
    small = np.bincount(objects.ravel()) < 20
    small[0] = False
    counted = ~small[objects]
    a, b = (found == label) & counted, (mask == label) & counted
    return (a & b).sum() / (a | b).sum()


@pytest.mark.parametrize("kind", ["coco", "labelme"])
def test_polygons(tmp_path, caplog, kind):
    pytest.importorskip("rasterio")
    pytest.importorskip("pycocotools")
    classes = ["background", "tree", "water"]
    masks = predicted(tmp_path, kinds=[kind], classes=classes)
    assert "polygons leave gaps" in caplog.text
    source = tmp_path / "source"
    shutil.copytree(tmp_path / "images", source / "images")
    if kind == "coco":
        shutil.copy(tmp_path / "out/coco.json", source / "coco.json")
    else:  # beside the images, as the paths in the files say
        for file in (tmp_path / "out/labelme").rglob("*.json"):
            content = json.loads(file.read_text())
            image = file.parent / content["imagePath"]
            assert image.resolve().is_file()
            target = source / "images" / file.relative_to(tmp_path / "out/labelme")
            target.write_text(json.dumps({**content, "imagePath": image.name}))
    names = {"labelme": {name: f"images/{name}" for name in masks}}.get(kind, {name: name for name in masks})
    result = converted(tmp_path, source, tmp_path / "data", names.values())
    assert read_dataset(tmp_path / "data").classes == classes
    for name, mask in masks.items():
        holes = sum((ndimage.binary_fill_holes(mask == label) & (mask != label)).any() for label in range(3))
        assert holes
        for label in range(3):
            assert intersection_over_union(result[names[name]], mask, label) > 0.98


def decode(data):
    """The values of a stream of @thi.ng/rle-pack, read bit by bit."""
    bits = "".join(f"{byte:08b}" for byte in data)
    place = 0

    def read(count):
        nonlocal place
        place += count
        return int(bits[place - count : place], 2)

    count, word = read(32), read(5) + 1
    widths = [read(4) + 1 for _ in range(4)]
    values = []
    while len(values) < count:
        run = read(1)
        length = read(widths[read(2)]) + 1
        values += [read(word)] * length if run else [read(word) for _ in range(length)]
    assert len(values) == count
    assert len(bits) - place < 8
    return values


def test_label_studio(tmp_path):
    classes = ["background", "tree", "water"]
    masks = predicted(tmp_path, kinds=["labelstudio"], classes=classes)
    tasks = json.loads((tmp_path / "out/labelstudio.json").read_text())
    assert [task["data"]["image"] for task in tasks] == [f"/data/local-files/?d={name}.png" for name in masks]
    for task, mask in zip(tasks, masks.values(), strict=True):
        result = np.zeros_like(mask)
        for region in task["predictions"][0]["result"]:
            assert (region["original_height"], region["original_width"]) == mask.shape
            values = np.array(decode(region["value"]["rle"])).reshape(*mask.shape, 4)
            assert np.array_equal(values, values[..., :1].repeat(4, -1))
            assert set(np.unique(values)) == {0, 255}
            result[values[..., 3] > 0] = classes.index(region["value"]["brushlabels"][0])
        assert np.array_equal(result, mask)


def test_label_studio_reads_the_path_from_a_query(tmp_path):
    name = os.fsdecode(b'50% "a" & b #1 \xff')
    predicted(tmp_path, names=[f"far/{name}"], kinds=["labelstudio"])
    (task,) = json.loads((tmp_path / "out/labelstudio.json").read_text())
    query = urlsplit(task["data"]["image"]).query
    assert parse_qs(query, errors="surrogateescape") == {"d": [f"far/{name}.png"]}


@pytest.mark.parametrize(
    ("name", "kinds"),
    [("#1", ["cvat"]), ("__ignore__", ["cvat"]), (" __ignore__", ["labelstudio"]), ("a\nb", ["cvat"])],
)
def test_class_names_that_would_be_read_back_as_something_else(tmp_path, name, kinds):
    with pytest.raises(DataError, match=f"the name {re.escape(repr(name))} cannot be read back from {kinds[0]}"):
        predicted(tmp_path, kinds=kinds, classes=["road", name, "tree"])
    assert not (tmp_path / "out").exists()
    predicted(tmp_path, classes=["road", name, "tree"])


def test_a_class_may_start_with_a_hash_outside_of_cvat(tmp_path):
    predicted(tmp_path, kinds=["labelstudio"], classes=["road", "#1", "tree"])
    assert read_names(tmp_path / "out/labels.txt") == ["road", "#1", "tree"]


def test_file_names_that_cvat_cannot_hold(tmp_path):
    with pytest.raises(DataError, match=r"'a\\udcff' cannot be read back from cvat: .* is not UTF-8"):
        predicted(tmp_path, names=[os.fsdecode(b"a\xff")], kinds=["cvat"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("length", [1, 2**14 - 1, 2**14, 2**14 + 1, 3 * 2**14])
def test_runs_of_any_length(length):
    pixels = np.zeros((1, length + 5), bool)
    pixels[0, 3 : 3 + length] = True
    assert np.array_equal(np.array(decode(brush_runs(pixels)))[::4] > 0, pixels[0])


def test_polygons_without_rasterio(tmp_path, monkeypatch):
    monkeypatch.setattr(polygons, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"fuzzyseg\[geo\]"):
        predicted(tmp_path, kinds=["coco"])
    assert not (tmp_path / "out").exists()


def test_encoded_masks_give_the_same_archive(tmp_path):
    colours = [(1, 2, 3), (4, 5, 6), (7, 8, 9)]
    encoding = Encoding(colours=tuple((*colour, index) for index, colour in enumerate(colours)), text="colours")
    model = predictor(encoding=encoding, colours=colours)
    file = write(tmp_path / "a.png", blobs(40, 50))
    predict_files(model, file, tmp_path / "out", write=["cvat"], encoded=True)
    with zipfile.ZipFile(tmp_path / "out/cvat.zip") as archive, archive.open("SegmentationClass/a.png") as stored:
        result = np.array(Image.open(stored))
    assert np.array_equal(result, np.array(Image.open(tmp_path / "out/masks/a.png")))
    assert np.array_equal(result, np.array(colours)[model.labels(file).numpy()])


def test_paths_are_those_of_the_images(tmp_path):
    pytest.importorskip("rasterio")
    predicted(tmp_path, kinds=["coco"])
    content = json.loads((tmp_path / "out/coco.json").read_text())
    assert [Path(image["file_name"]) for image in content["images"]] == [Path("a.png"), Path("far/b.png")]
    for item in content["annotations"]:
        x, y, width, height = item["bbox"]
        assert 0 < item["area"] <= width * height
        assert 0 <= x < x + width <= 80
        assert 0 <= y < y + height <= 61
