"""COCO: files written with the API's own code."""

import json
import sys

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_masks

from fuzzyseg.data import DataError, read_dataset
from fuzzyseg.data.annotations import coco, read_annotations, write_dataset
from fuzzyseg.data.annotations.coco import decompress
from fuzzyseg.experiment import convert

SIZE = (24, 32)


def blob(seed):
    """Random pixels in clumps, (H, W) uint8."""
    rng = np.random.default_rng(seed)
    return (np.kron(rng.random((6, 8)), np.ones((4, 4))) > 0.6).astype(np.uint8)


def coded(mask, packed=True):
    """Run lengths as the API writes them: packed into a text, or as numbers."""
    rle = coco_masks.encode(np.asfortranarray(mask))
    if packed:
        return {"size": list(SIZE), "counts": rle["counts"].decode()}
    pixels = mask.flatten(order="F")
    edges = np.flatnonzero(np.diff(np.concatenate([[0], pixels])))
    return {"size": list(SIZE), "counts": np.diff([0, *edges, pixels.size]).tolist()}


def thing(image, category, segmentation, crowd=0):
    return {"id": 1, "image_id": image, "category_id": category, "segmentation": segmentation, "iscrowd": crowd}


CATEGORIES = [{"id": 44, "name": "bottle"}, {"id": 1, "name": "person"}, {"id": 3, "name": "car"}]


def content(annotations, images=("a",), categories=CATEGORIES, **more):
    entries = [
        {"id": 7 + n, "file_name": f"{name}.jpg", "height": SIZE[0], "width": SIZE[1]} for n, name in enumerate(images)
    ]
    return {"images": entries, "annotations": annotations, "categories": categories, **more}


def write(root, value, name="annotations/instances_train2017.json", folder="train2017", images=("a",)):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    (root / folder).mkdir(exist_ok=True)
    for image in images:
        Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(root / folder / f"{image}.jpg")
    return path


def masks(source, out, labels=None):
    annotations = read_annotations(source, labels)
    _, failures = write_dataset(annotations, out)
    assert not failures
    result = {p.relative_to(out / "masks").with_suffix("").as_posix(): p for p in (out / "masks").rglob("*.png")}
    return {name: np.array(Image.open(path)) for name, path in result.items()}, annotations


@pytest.mark.parametrize("seed", range(20))
def test_packed_run_lengths_are_read_as_the_api_reads_them(seed):
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(1, 300)), int(rng.integers(1, 300)))
    mask = (rng.random(shape) < rng.choice([0.001, 0.02, 0.5, 1])).astype(np.uint8)
    text = coco_masks.encode(np.asfortranarray(mask))["counts"].decode()
    runs = decompress(text, "x")
    values = np.repeat(np.arange(len(runs)) % 2, runs)
    np.testing.assert_array_equal(values.reshape(shape, order="F"), mask)


def test_polygons_run_lengths_and_crowds_later_wins(tmp_path):
    polygons = [[2.0, 2.0, 20.5, 3.0, 12.0, 21.0], [25, 3, 30, 3, 30, 8, 25, 8]]
    hole = np.zeros(SIZE, np.uint8)
    hole[8:20, 4:28] = 1
    hole[11:15, 10:20] = 0
    crowd = blob(1)
    values = [
        thing(7, 3, polygons),
        thing(7, 44, coded(hole)),
        thing(7, 1, coded(crowd, packed=False), crowd=1),
        thing(8, 1, coded(hole, packed=False)),
    ]
    write(tmp_path / "in", content(values, images=("a", "b", "c")), images=("a", "b", "c"))
    result, annotations = masks(tmp_path / "in", tmp_path / "out")
    drawn = coco_masks.decode(coco_masks.merge(coco_masks.frPyObjects(polygons, *SIZE)))
    expected = np.zeros(SIZE, int)
    expected[drawn == 1] = 2  # person 1, car 3, bottle 44: by their ids
    expected[hole == 1] = 3
    expected[crowd == 1] = 1
    np.testing.assert_array_equal(result["a"], expected)
    np.testing.assert_array_equal(result["b"], hole)
    assert not result["c"].any()  # looked at, nothing there
    assert annotations.classes == ["background", "person", "car", "bottle"]
    assert any("4 objects, 1 of them crowds" in sentence for sentence in annotations.notes)
    assert read_dataset(tmp_path / "out").classes == annotations.classes


def test_labels_order_ignore_and_leave_void(tmp_path):
    square = np.zeros(SIZE, np.uint8)
    square[3:9, 3:9] = 1
    value = content(
        [thing(7, 1, coded(square)), thing(7, 2, coded(np.roll(square, 10, 1)))],
        categories=[{"id": 1, "name": "cat"}, {"id": 2, "name": "__ignore__"}],
    )
    write(tmp_path / "in", value)
    result, _ = masks(tmp_path / "in", tmp_path / "out", ["dog", "background", "cat"])
    expected = np.ones(SIZE, int)
    expected[square == 1], expected[np.roll(square, 10, 1) == 1] = 2, 255
    np.testing.assert_array_equal(result["a"], expected)
    with pytest.raises(DataError, match=r"annotations\.0: found the label 'cat'"):
        read_annotations(tmp_path / "in", ["dog", "background"])


def test_several_files_are_splits(tmp_path):
    root = tmp_path / "in"
    write(root, content([thing(7, 1, coded(blob(1)))], images=("a",)))
    value = content([thing(7, 3, coded(blob(2)))], images=("a", "b"))
    write(root, value, "annotations/instances_val2017.json", "val2017", ("a", "b"))
    (root / "annotations/captions_val2017.json").write_text(json.dumps({"images": [], "annotations": []}))
    result, annotations = masks(root, tmp_path / "out")
    np.testing.assert_array_equal(result["train/a"], blob(1))
    np.testing.assert_array_equal(result["val/a"], 2 * blob(2))
    assert any("captions_val2017.json: " in sentence for sentence in annotations.notes)
    data = read_dataset(tmp_path / "out")
    assert ([i.name for i in data.train], [i.name for i in data.val]) == (["train/a"], ["val/a", "val/b"])
    one, _ = masks(root / "annotations/instances_val2017.json", tmp_path / "one")
    assert set(one) == {"a", "b"}
    write(root, content([], images=("a",)), "annotations/instances_train_more.json", "train_more")
    with pytest.raises(DataError, match=r"instances_train_more\.json.*train_more/a\.jpg and .*both named train/a"):
        read_annotations(root)


@pytest.mark.parametrize("text", ["../secret.jpg", "/secret.jpg", "train2017/../../secret.jpg", "..\\secret.jpg"])
def test_paths_that_leave_the_folder_are_refused(tmp_path, text):
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(tmp_path / "secret.jpg")
    value = content([])
    value["images"][0]["file_name"] = text
    write(tmp_path / "in", value)
    with pytest.raises(DataError, match=r"train2017\.json: images\.0: found the path .* leaves the data folder"):
        read_annotations(tmp_path / "in")


SQUARE = [3, 3, 9, 3, 9, 9, 3, 9]
WRONG = {
    "box alone": (
        thing(7, 1, None) | {"bbox": [1, 2, 3, 4]},
        "found bbox where .*, as in 1 of 2 annotations",
    ),
    "keypoints": (
        {"image_id": 7, "category_id": 1, "keypoints": [1, 2, 2], "bbox": [1, 2, 3, 4]},
        "found bbox and keypoints where .*, as in 1 of 2",
    ),
    "empty": (thing(7, 1, []), "found no polygon where .*, as in 1 of 2.*expected polygons or run lengths"),
    "no run": (thing(7, 1, {}), "found no polygon"),
    "empty polygon": (thing(7, 1, [[]]), r"polygons\.0.*a polygon of 0 numbers; expected at least 3 points"),
    "four numbers": (thing(7, 1, [[3, 3, 9, 9]]), "a polygon of 4 numbers; expected at least 3 points"),
    "odd": (thing(7, 1, [[*SQUARE, 4]]), "a polygon of 9 numbers"),
    "no counts": (thing(7, 1, {"size": list(SIZE)}), r"segmentation\.run lengths\.counts"),
    "text": (thing(7, 1, [[*SQUARE, "a", 4]]), "segmentation.*'a'"),
    "infinite": (thing(7, 1, [[*SQUARE, float("inf"), 4]]), "segmentation.*inf"),
    "far": (thing(7, 1, [[*SQUARE, 1e9, 4]]), r"found the point \(1e\+09, 4\)"),
    "image": (thing(99, 1, [SQUARE]), "image_id 99"),
    "category": (thing(7, 99, [SQUARE]), "category_id 99"),
    "no object": (3, "3"),
    "identity": (thing("7", 1, [SQUARE]), "image_id.*'7'"),
    "short": (thing(7, 1, {"size": list(SIZE), "counts": [3, 4]}), "7 pixels.* 768"),
    "negative": (thing(7, 1, {"size": list(SIZE), "counts": [800, -32]}), "counts.*-32"),
    "long": (thing(7, 1, {"size": list(SIZE), "counts": "oooooooo0"}), "run lengths"),
    "foreign": (thing(7, 1, {"size": list(SIZE), "counts": "ab\u1234"}), "run lengths are damaged"),
    "cut": (thing(7, 1, {"size": list(SIZE), "counts": coded(blob(3))["counts"][:-1]}), "run lengths"),
    "size": (thing(7, 1, {"size": [32, 24], "counts": [768]}), r"size \[32, 24\]"),
}


@pytest.mark.parametrize("what", WRONG)
def test_annotations_that_are_wrong_are_named_and_nothing_is_written(tmp_path, what):
    entry, message = WRONG[what]
    write(tmp_path / "in", content([thing(7, 1, [SQUARE]), entry]))
    with pytest.raises(DataError, match=rf"(?s)instances_train2017\.json: annotations\.1\b.*{message}"):
        convert(tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_of_boxes_says_so_in_one_line(tmp_path):
    boxes = [thing(7, 1, []) | {"bbox": [1, 2, 3, 4]} for _ in range(9)]
    write(tmp_path / "in", content(boxes))
    with pytest.raises(DataError, match=r"annotations\.0: found bbox where .*, as in 9 of 9") as result:
        convert(tmp_path / "in", tmp_path / "out")
    assert str(result.value).count("\n") == 0


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
def test_a_list_that_is_missing_is_named(tmp_path, key):
    value = content([thing(7, 1, [SQUARE])])
    whole = write(tmp_path / "in", value)
    write(tmp_path / "in", {name: part for name, part in value.items() if name != key}, "annotations/other.json")
    assert any(
        f"other.json: has no list {key} and is ignored" in note for note in read_annotations(tmp_path / "in").notes
    )
    whole.unlink()
    with pytest.raises(DataError, match=rf"other\.json: is a COCO file without {key}"):
        read_annotations(tmp_path / "in")


ENTRY = {"id": 7, "file_name": "a.jpg", "height": 24, "width": 32}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": [{"id": 7, "height": 24, "width": 32}]}, r"images\.0\.file_name"),
        ({"images": [{"id": 7, "file_name": "a.jpg", "height": 0.5, "width": 32}]}, r"images\.0\.height.*0\.5"),
        ({"images": [{"id": 7, "file_name": "lost.jpg", "height": 24, "width": 32}]}, r"images\.0.*'lost\.jpg'"),
        (
            {"images": [ENTRY, ENTRY | {"file_name": "b.jpg"}]},
            r"images\.1: the id 7 belongs to 'a' and 'b'",
        ),
        (
            {"images": [ENTRY, ENTRY | {"id": 8, "width": 30}]},
            r"'a\.jpg' is listed twice \(image 7 of .*, image 8 here\)",
        ),
        ({"images": [ENTRY, ENTRY | {"id": 8, "file_name": "a.png"}]}, r"a\.png and .*a\.jpg are both named a; rename"),
        ({"categories": [{"id": 1}]}, r"categories\.0\.name"),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}, "category id 1 is both 'a' and 'b'"),
    ],
)
def test_images_and_categories_that_are_wrong_are_named(tmp_path, change, message):
    write(tmp_path / "in", content([]) | change, images=("a", "b"))
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(tmp_path / "in/train2017/a.png")
    with pytest.raises(DataError, match=rf"instances_train2017\.json.*{message}"):
        read_annotations(tmp_path / "in")


def test_an_image_of_another_size_is_left_out_and_told(tmp_path):
    value = content([thing(7, 1, [SQUARE]), thing(8, 1, [SQUARE])], images=("a", "b"))
    value["images"][0] |= {"height": 32, "width": 24}
    write(tmp_path / "in", value, images=("a", "b"))
    result = convert(tmp_path / "in", tmp_path / "out")
    assert result.written == {"images": 1, "masks": 1}
    assert "a.jpg as (32, 24) (height, width), but it is (24, 32)" in str(result.failures[0])


def test_a_missing_pycocotools_is_an_error_that_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(DataError, match="annotate"):
        coco._pixels([[0.0, 0.0, 2.0, 0.0, 2.0, 2.0]], (4, 4))


def test_objects_of_an_image_that_is_listed_twice_are_joined(tmp_path):
    left, right = np.zeros((2, *SIZE), np.uint8)
    left[:, :8], right[:, 20:] = 1, 1
    value = content([thing(7, 1, coded(left)), thing(9, 3, coded(right))])
    value["images"] += [ENTRY | {"id": 9}, ENTRY]
    write(tmp_path / "in", value)
    result, annotations = masks(tmp_path / "in", tmp_path / "out")
    np.testing.assert_array_equal(result["a"], left + 2 * right)
    assert list(result) == ["a"]
    assert any("image 7" in note and "image 9" in note for note in annotations.notes)


@pytest.mark.parametrize("names", [("instances_train", "instances_val"), ("one/val", "train")])
def test_an_image_of_two_splits_is_an_error_that_names_both_files(tmp_path, names):
    for seed, name in enumerate(names):
        write(tmp_path / "in", content([thing(7, 1, coded(blob(seed)))]), f"{name}.json", "images")
    annotations = read_annotations(tmp_path / "in")
    with pytest.raises(DataError) as caught:
        write_dataset(annotations, tmp_path / "out")
    for name in (f"{names[0]}.json", f"{names[1]}.json", "images/a.jpg"):
        assert str(tmp_path / "in" / name) in str(caught.value)
    assert not (tmp_path / "out").exists()


PLACES = {
    "beside the images": ("{folder}/_annotations.coco.json", "{folder}"),
    "images in data": ("{folder}/labels.json", "{folder}/data"),
    "images in images": ("{folder}/annotations.json", "{folder}/images"),
    "annotations beside": ("{folder}/annotations/instances_default.json", "{folder}/images"),
    "files named": ("annotations/instances_{folder}.json", "images/{folder}"),
    "files named with a year": ("annotations/person_{folder}2014.json", "{folder}2014"),
    "file of another folder": ("{folder}.json", "{folder}"),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("names", [("train", "valid", "test"), ("training", "Validation", "testing")])
def test_split_folders_become_splits_also_with_the_same_names_in_each(tmp_path, place, names):
    root = tmp_path / "in"
    for seed, folder in enumerate(names):
        path, images = (text.format(folder=folder) for text in PLACES[place])
        (root / images).mkdir(parents=True)
        write(root, content([thing(7, 1, coded(blob(seed)))]), path, images)
        Image.fromarray(np.full((*SIZE, 3), seed, np.uint8)).save(root / images / "a.jpg")
    result, _ = masks(root, tmp_path / "out")
    assert set(result) == {"train/a", "val/a", "test/a"}
    for seed, split in enumerate(("train", "val", "test")):
        np.testing.assert_array_equal(result[f"{split}/a"], blob(seed))
        assert np.array(Image.open(tmp_path / f"out/images/{split}/a.jpg")).max() == seed


@pytest.mark.parametrize("names", [("latest", "strain"), ("interval", "contest"), ("devices", "validity")])
def test_a_part_of_a_word_is_no_split(tmp_path, names):
    for name in names:
        write(tmp_path / "in", content([]), f"{name}/annotations.json", name)
    result, _ = masks(tmp_path / "in", tmp_path / "out")
    data = read_dataset(tmp_path / "out", classes=["a", "b"])
    assert len(result) == len(data.train) == 2 and data.val is None and data.test is None


def test_a_validation_folder_alone_is_not_trained_on(tmp_path):
    write(tmp_path / "in", content([]), "valid/_annotations.coco.json", "valid")
    masks(tmp_path / "in", tmp_path / "out")
    data = read_dataset(tmp_path / "out", classes=["a", "b"])
    assert not data.train and [item.name for item in data.val] == ["val/a"]


def test_blanks_around_names_are_removed_and_nearly_equal_names_are_told(tmp_path):
    categories = [{"id": 1, "name": "car "}, {"id": 3, "name": "Car"}, {"id": 4, "name": "car"}]
    write(tmp_path / "in", content([thing(7, 1, [SQUARE])], categories=categories))
    _, annotations = masks(tmp_path / "in", tmp_path / "out")
    assert annotations.classes == ["background", "car", "Car"]
    assert any("'car '" in note for note in annotations.notes)
    assert any("'car' and 'Car'" in note for note in annotations.notes)


def test_an_image_in_several_files_is_joined_in_one_split_and_refused_in_two(tmp_path):
    left, right = np.zeros((2, *SIZE), np.uint8)
    left[:, :8], right[:, 20:] = 1, 1
    for folder, files in {"one": ("cats.json", "dogs.json"), "two": ("train.json", "val.json")}.items():
        write(tmp_path / folder, content([thing(7, 1, coded(left))]), files[0], "images")
        write(tmp_path / folder, content([thing(7, 3, coded(right))]), files[1], "images")
    result, _ = masks(tmp_path / "one", tmp_path / "out")
    assert len(result) == 1
    np.testing.assert_array_equal(next(iter(result.values())), left + 2 * right)
    with pytest.raises(DataError, match=r"a\.jpg: is annotated twice, in .*train\.json and .*val\.json"):
        masks(tmp_path / "two", tmp_path / "out2")
