"""Masks of 0 and 255, of 0 and 1, with greys, and of background and void."""

import io

import numpy as np
import pytest
from PIL import Image

from fuzzyseg.data import DataError, combine, read_dataset
from fuzzyseg.data.labels.decode import training_labels

OBJECT = np.kron(np.array([[0, 1, 1], [0, 0, 1]], np.uint8), np.ones((16, 16), np.uint8))


def put(root, name, mask, suffix=".png", kind=None):
    image = root / "images" / f"{name}.png"
    image.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros(mask.shape[:2], np.uint8)).save(image)
    path = (root / "masks" / name).with_suffix(suffix)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(mask)
    (picture if kind is None else picture.convert(kind)).save(path)


def fill(root, ones=4, full=1, split="", kind=None):
    for number in range(ones):
        put(root, f"train/a{number}", OBJECT, kind=None)
    for number in range(full):
        put(root, f"{split or 'train'}/b{number}", OBJECT * 255, kind=kind)
    return root


def labels(data, item):
    return training_labels(item, classes=len(data.classes), ignore_index=data.ignore_index)


def every(data):
    return [item for item in [*data.train, *(data.val or []), *(data.test or [])] if item.mask is not None]


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("yaml", ["", "classes: [background, crack]", "encoding: index"])
@pytest.mark.parametrize("few", [False, True])
def test_0_and_255_beside_0_and_1_is_an_error_that_names_both(tmp_path, split, yaml, few):
    fill(tmp_path, ones=1 if few else 40, full=40 if few else 1, split=split)
    (tmp_path / "dataset.yaml").write_text(yaml)
    with pytest.raises(DataError, match=r"b0\.png holds 0 and 255 .*a0\.png holds 1.*encoding: binary.*ignore_index"):
        read_dataset(tmp_path)
    (tmp_path / "dataset.yaml").write_text("encoding: binary\nclasses: [background, crack]")
    data = read_dataset(tmp_path)
    for item in every(data):
        np.testing.assert_array_equal(labels(data, item), OBJECT)
    (tmp_path / "dataset.yaml").write_text("ignore_index: 255\nclasses: [background, crack]")
    data = read_dataset(tmp_path)
    for item in every(data):
        np.testing.assert_array_equal(labels(data, item), OBJECT * (255 if item.image.name[0] == "b" else 1))


@pytest.mark.parametrize("kind", ["RGB", "I;16", "P"])
def test_0_and_255_is_found_in_other_files_too(tmp_path, kind):
    if kind == "RGB":
        put(tmp_path, "train/b0", (OBJECT * 255)[..., None].repeat(3, 2))
        put(tmp_path, "train/a0", OBJECT[..., None].repeat(3, 2))
    else:
        fill(tmp_path, full=0)
        put(tmp_path, "train/b0", (OBJECT * np.uint16(255)) if kind == "I;16" else OBJECT * 255)
    if kind == "P":
        image = Image.fromarray(OBJECT * 255, "P")
        image.putpalette([value for value in range(256) for _ in range(3)])
        image.save(tmp_path / "masks/train/b0.png")
    with pytest.raises(DataError, match=r"b0\.png holds 0 and 255"):
        read_dataset(tmp_path)


def test_one_bit_masks_beside_0_and_255(tmp_path):
    fill(tmp_path, full=2)
    Image.fromarray(OBJECT > 0).save(tmp_path / "masks/train/a0.png")
    with pytest.raises(DataError, match=r"b0\.png holds 0 and 255"):
        read_dataset(tmp_path)
    data = read_dataset(tmp_path, encoding="binary")
    for item in data.train:
        np.testing.assert_array_equal(labels(data, item), OBJECT)


def test_further_data_and_evaluation_data_with_0_and_255(tmp_path):
    known = read_dataset(fill(tmp_path / "first", full=0), classes=["background", "crack"])
    other = fill(tmp_path / "other", ones=0, full=3)
    for read in (
        lambda: read_dataset(other, fallback=known.label_map),
        lambda: combine(known, more=[other]),
    ):
        with pytest.raises(DataError, match=r"other/masks/train/b0\.png holds 0 and 255 \(3 such masks\)"):
            read()
    (other / "dataset.yaml").write_text("encoding: binary\nclasses: [background, crack]")
    for data in (read_dataset(other, fallback=known.label_map), combine(known, more=[other])):
        for item in data.train:
            np.testing.assert_array_equal(labels(data, item), OBJECT)


@pytest.mark.parametrize(
    "yaml", ["classes: [a, b, c]\nmerge: {bc: [b, c]}", "values: {a: 0, bc: 1}", "values: {a: [0, 2], bc: [1, 3]}"]
)
def test_0_and_255_where_a_table_gives_two_classes(tmp_path, yaml):
    (fill(tmp_path / "first", full=0) / "dataset.yaml").write_text(yaml)
    known = read_dataset(tmp_path / "first")
    other = fill(tmp_path / "other", ones=0, full=3)
    with pytest.raises(DataError, match=r"b0\.png holds 0 and 255 \(3 such masks\)"):
        read_dataset(other, fallback=known.label_map)
    assert read_dataset(other, fallback=known.label_map, ignore_index=255).classes == ["a", "bc"]


def test_snapping_does_not_turn_1_into_background(tmp_path):
    fill(tmp_path, ones=1, full=3, split="train")
    (tmp_path / "masks/train/a0.png").rename(tmp_path / "masks/train/a0.bak")
    read_dataset(tmp_path, snap=True)
    (tmp_path / "masks/train/a0.bak").unlink()
    put(tmp_path, "val/a0", OBJECT)
    with pytest.raises(DataError, match=r"b0\.png holds 0 and 255.*val/a0\.png holds 1"):
        read_dataset(tmp_path, snap=True)
    data = read_dataset(tmp_path, snap=True, encoding="binary")
    for item in every(data):
        np.testing.assert_array_equal(labels(data, item), OBJECT)


@pytest.mark.parametrize("split", ["train", "val"])
def test_background_and_void_in_most_masks_of_more_classes_is_warned_of(tmp_path, split):
    for number in range(6):
        put(tmp_path, f"train/a{number}", OBJECT * (number % 3))
    put(tmp_path, f"{split}/b0", OBJECT * 255)
    whole = 7 if split == "train" else 1
    result = [note for note in read_dataset(tmp_path).notes if note.startswith("warning")]
    assert bool(result) == (whole == 1)
    for number in range(1, 10):
        put(tmp_path, f"{split}/b{number}", OBJECT * 255)
    result = [note for note in read_dataset(tmp_path).notes if note.startswith("warning")]
    assert len(result) == 1 and f"10 of {10 if split == 'val' else 16} masks of {split}" in result[0]
    assert not any("warning" in note for note in read_dataset(tmp_path, ignore_index=255).notes)


def lossy(mask, quality):
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "JPEG", quality=quality)
    return np.array(Image.open(file))


def smooth(mask, side):
    return np.array(Image.fromarray(mask).resize((side, side), Image.Resampling.BILINEAR))


y, x = np.mgrid[:96, :96]
DISC = ((y - 48) ** 2 + (x - 40) ** 2 < 900).astype(np.uint8) * 255


@pytest.mark.parametrize(
    "grey", [lossy(DISC, 40), lossy(DISC, 75), lossy(DISC, 95), smooth(DISC, 70), smooth(DISC, 111)]
)
@pytest.mark.parametrize("rgb", [False, True])
def test_greys_between_0_and_255_are_asked_about_and_never_classes(tmp_path, grey, rgb):
    for number in range(3):
        put(tmp_path, f"a{number}", grey[..., None].repeat(3, 2) if rgb else grey)
    with pytest.raises(DataError, match=r"encoding: binary.*--snap"):
        read_dataset(tmp_path)
    with pytest.raises(DataError, match=r"encoding: binary.*--snap"):
        read_dataset(tmp_path, snap=True)
    data = read_dataset(tmp_path, encoding="binary", snap=True)
    np.testing.assert_array_equal(labels(data, data.train[0]), grey > 127)


def test_many_unnamed_classes_are_asked_about_and_read_with_names(tmp_path):
    mask = np.arange(60, dtype=np.uint8).reshape(6, 10)
    put(tmp_path, "a", mask)
    with pytest.raises(DataError, match=r"values 0, 1, 2, .* grey levels, or class indices without names"):
        read_dataset(tmp_path)
    data = read_dataset(tmp_path, classes=[f"c{i}" for i in range(60)])
    np.testing.assert_array_equal(labels(data, data.train[0]), mask)


ONE_CLASS = {
    "void beside one": [(1, 255)],
    "one value": [(3,)],
    "one value in each": [(1, 255), (2, 255), (3,)],
    "void only in some": [(0,), (1, 255), (255,)],
}


def put_values(root, masks):
    for number, values in enumerate(masks):
        put(root, f"a{number}", np.resize(np.array(values, np.uint8), (16, 16)))
    return root


@pytest.mark.parametrize("kind", ONE_CLASS)
def test_masks_of_one_class_and_void_are_read_with_names(tmp_path, kind):
    masks = ONE_CLASS[kind]
    data = read_dataset(put_values(tmp_path, masks), classes=["a", "b", "c", "d"])
    for item, values in zip(data.train, masks, strict=True):
        assert set(np.unique(labels(data, item))) == set(values)


@pytest.mark.parametrize("kind", ["void beside one", "one value"])
def test_one_class_without_a_name_is_asked_about(tmp_path, kind):
    with pytest.raises(DataError, match=r"found only the values .*; expected at least two classes"):
        read_dataset(put_values(tmp_path, ONE_CLASS[kind]))


def test_one_class_in_each_mask_is_enough_if_the_masks_hold_several(tmp_path):
    masks = ONE_CLASS["one value in each"]
    data = read_dataset(put_values(tmp_path, masks))
    assert data.classes == ["class_1", "class_2", "class_3"]
    for item, values in zip(data.train, masks, strict=True):
        assert set(np.unique(labels(data, item))) == {value if value == 255 else value - 1 for value in values}
