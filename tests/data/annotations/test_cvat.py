"""CVAT's "Segmentation mask": colours become class indices."""

import zipfile

import numpy as np
import pytest
from PIL import Image

from fuzzyseg.data import DataError, read_dataset
from fuzzyseg.data.annotations import read_annotations, write_dataset
from fuzzyseg.data.labels.decode import training_labels
from fuzzyseg.experiment import convert

MAP = "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncar:10,20,30::\n__ignore__:9,9,9::\ntree:200,0,7:a,b:c\n"
COLOURS = {"background": (0, 0, 0), "car": (10, 20, 30), "__ignore__": (9, 9, 9), "tree": (200, 0, 7)}
PATTERN = np.random.default_rng(0).integers(0, 4, (5, 8))


def export(root, label_map=MAP, mode="RGB", folder="JPEGImages", names=("a",)):
    """An export with the masks of PATTERN, whose values are places in the map."""
    (root / "SegmentationClass").mkdir(parents=True)
    (root / "labelmap.txt").write_text(label_map)
    colours = np.array(list(COLOURS.values()), np.uint8)
    for name in names:
        if mode in ("RGB", "RGBA"):
            picture = Image.fromarray(colours[PATTERN]).convert(mode)
        else:
            picture = Image.fromarray(PATTERN.astype(np.uint8))
            if mode == "P":
                picture.putpalette(colours.flatten().tolist())
        path = root / "SegmentationClass" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        picture.save(path)
        if folder:
            image = root / folder / f"{name}.jpg"
            image.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.zeros((*PATTERN.shape, 3), np.uint8)).save(image)
    return root


EXPECTED = np.array([0, 1, 255, 2])[PATTERN]


def mask(source, out, labels=None):
    annotations = read_annotations(source, labels)
    _, failures = write_dataset(annotations, out)
    assert not failures
    return np.array(Image.open(next((out / "masks").rglob("*.png")))), annotations


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L"])
@pytest.mark.parametrize("folder", ["JPEGImages", "images"])
def test_colours_become_the_places_of_the_map(tmp_path, mode, folder):
    result, annotations = mask(export(tmp_path / "in", mode=mode, folder=folder, names=("deep/a",)), tmp_path / "out")
    np.testing.assert_array_equal(result, EXPECTED)
    assert annotations.classes == ["background", "car", "tree"]
    data = read_dataset(tmp_path / "out")
    assert data.colours == [COLOURS[name] for name in data.classes]
    assert [item.name for item in data.train] == ["deep/a"]


def test_labels_give_the_order_and_images_without_masks_stay(tmp_path):
    source = export(tmp_path / "in")
    Image.fromarray(np.zeros((5, 8, 3), np.uint8)).save(source / "JPEGImages/free.jpg")
    result, annotations = mask(source, tmp_path / "out", ["tree", "car", "background"])
    np.testing.assert_array_equal(result, np.array([2, 1, 255, 0])[PATTERN])
    assert annotations.colours == [(200, 0, 7), (10, 20, 30), (0, 0, 0)]
    assert [(i.name, i.mask is not None) for i in read_dataset(tmp_path / "out").train] == [
        ("a", True),
        ("free", False),
    ]
    with pytest.raises(DataError, match=r"labelmap\.txt: found the label 'tree'"):
        read_annotations(source, ["car", "background"])


def test_black_is_under_no_shape_where_no_label_has_it(tmp_path):
    source = export(tmp_path / "in", MAP.replace("background:0,0,0::\n", ""))
    result, annotations = mask(source, tmp_path / "out")
    np.testing.assert_array_equal(result, EXPECTED)
    assert annotations.classes == ["background", "car", "tree"]
    result, _ = mask(source, tmp_path / "out2", ["car", "tree"])
    np.testing.assert_array_equal(result, np.array([255, 0, 255, 1])[PATTERN])


def test_a_colour_that_is_not_in_the_map_is_told_with_its_count(tmp_path):
    source = export(tmp_path / "in")
    pixels = np.array(Image.open(source / "SegmentationClass/a.png"))
    pixels[0, :3] = (10, 20, 31)
    Image.fromarray(pixels).save(source / "SegmentationClass/a.png")
    result = convert(source, tmp_path / "out")
    assert result.written == {"images": 0, "masks": 0}
    assert r"(10, 20, 31) 3 times" in str(result.failures[0]) and "SegmentationClass/a.png" in str(result.failures[0])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("car:10,20", r"labelmap\.txt, line 2: found 'car:10,20'"),
        ("car", r"labelmap\.txt, line 2"),
        ("car:10,20,300::", r"line 2: .*from 0 to 255"),
        (":1,2,3::", r"line 2"),
        ("car:0,0,0::", r"two labels have the colour \(0, 0, 0\)"),
    ],
)
def test_maps_that_are_wrong_are_named(tmp_path, line, message):
    source = export(tmp_path / "in", f"background:0,0,0::\n{line}\ntree:200,0,7::\n")
    with pytest.raises(DataError, match=message):
        read_annotations(source)


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(DataError, match=r"has no folder JPEGImages or images; export with 'Save images'"):
        read_annotations(export(tmp_path / "a", folder=None))
    source = export(tmp_path / "b")
    (source / "JPEGImages/a.jpg").rename(source / "JPEGImages/b.jpg")
    with pytest.raises(DataError, match=r"SegmentationClass/a\.png: has no image"):
        read_annotations(source)
    source = export(tmp_path / "c")
    Image.fromarray(np.full((5, 8), 9, np.uint8)).save(source / "SegmentationClass/a.png")
    assert "found the values 9 in 40 pixels; expected 0 to 3" in str(convert(source, tmp_path / "out").failures[0])


def test_what_is_no_annotation_is_said(tmp_path):
    with pytest.raises(DataError, match=r"nowhere: does not exist; expected LabelMe"):
        read_annotations(tmp_path / "nowhere")
    with zipfile.ZipFile(tmp_path / "task.zip", "w") as file:
        file.writestr("labelmap.txt", MAP)
    with pytest.raises(DataError, match=r"task\.zip: .*unpack it first"):
        read_annotations(tmp_path / "task.zip")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/x.xml").write_text("<a/>")
    with pytest.raises(DataError, match=r"in: contains no supported annotations; found x\.xml; expected LabelMe"):
        read_annotations(tmp_path / "in")
    (tmp_path / "in/a.json").write_text("{")
    (tmp_path / "in/b.json").write_text("[" * 100000)
    with pytest.raises(DataError, match=r"(?s)2 annotation files.*a\.json: is not valid.*b\.json: is not valid"):
        read_annotations(tmp_path / "in")
    (tmp_path / "in/a.json").write_text('{"shapes": []}')
    (tmp_path / "in/b.json").write_text('{"images": [], "annotations": [], "categories": []}')
    with pytest.raises(DataError, match=r"LabelMe files such as .*a\.json and COCO files such as .*b\.json"):
        read_annotations(tmp_path / "in")
    (tmp_path / "in/b.json").write_text('{"a": 1}')
    with pytest.raises(DataError, match=r"b\.json: is not a LabelMe file"):
        read_annotations(tmp_path / "in")


def test_a_value_that_is_no_entry_of_the_label_map_is_an_error(tmp_path):
    source = export(tmp_path / "in", "background:0,0,0::\ncar:128,0,0::\n")
    for path in (source / "SegmentationClass").iterdir():
        Image.fromarray(np.full(np.array(Image.open(path)).shape[:2], 255, np.uint8)).save(path)
    _, failures = write_dataset(read_annotations(source), tmp_path / "out")
    assert failures and all("found the value 255" in str(failure) for failure in failures)


@pytest.mark.parametrize("mode", ["RGB", "P", "L"])
@pytest.mark.parametrize(
    ("label_map", "classes"),
    [
        (MAP, ["background", "car", "tree"]),
        (MAP.replace("background", "ground"), ["ground", "car", "tree"]),
        (MAP.replace("tree", "car"), ["background", "car"]),
    ],
)
def test_an_export_read_in_vocs_layout_and_converted_gives_the_same(tmp_path, mode, label_map, classes):
    source = export(tmp_path / "in", label_map, mode)
    result, _ = mask(source, tmp_path / "out")
    for root in (source, tmp_path / "out"):
        data = read_dataset(root)
        assert data.classes == classes
        labels = training_labels(data.train[0], classes=len(classes), ignore_index=data.ignore_index)
        np.testing.assert_array_equal(labels, result)
    np.testing.assert_array_equal(result, np.array([0, 1, 255, len(classes) - 1])[PATTERN])


def test_names_in_two_unicode_forms_are_paired(tmp_path):
    source = export(tmp_path / "in", names=("caf\u00e9",))
    image = source / "JPEGImages/caf\u00e9.jpg"
    image.rename(image.with_name("cafe\u0301.jpg"))
    result, _ = mask(source, tmp_path / "out")
    np.testing.assert_array_equal(result, EXPECTED)


@pytest.mark.parametrize("folder", ["JPEGImages", "images"])
@pytest.mark.parametrize(("train", "val"), [("Train", "Validation"), ("train", "val"), (None, "valid")])
def test_the_subsets_of_a_project_become_splits(tmp_path, folder, train, val):
    """As reading the export itself does; CVAT lists names, or the images below their folder."""
    source = export(tmp_path / "in", folder=folder, names=("a", "b", "c", "d"))
    lists = source / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / f"{val}.txt").write_text(f"{folder}/b.jpg\nd\n")
    if train:
        (lists / f"{train}.txt").write_text("a\nc\n")
    convert(source, tmp_path / "out")
    data = read_dataset(tmp_path / "out")
    assert [item.image.stem for item in data.train] == ["a", "c"]
    assert [item.image.stem for item in data.val or []] == ["b", "d"]
    assert not data.test
    if folder == "JPEGImages":
        direct = read_dataset(source)
        assert [[item.image.stem for item in part or []] for part in (direct.train, direct.val)] == [
            ["a", "c"],
            ["b", "d"],
        ]


def test_a_list_of_all_images_makes_no_split(tmp_path):
    source = export(tmp_path / "in", names=("a", "b"))
    (source / "ImageSets" / "Segmentation").mkdir(parents=True)
    (source / "ImageSets" / "Segmentation" / "default.txt").write_text("a\nb\n")
    convert(source, tmp_path / "out")
    assert [item.name for item in read_dataset(tmp_path / "out").train] == ["a", "b"]
