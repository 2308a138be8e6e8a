"""Several roots together; images from anywhere without masks."""

import numpy as np
import pytest
from PIL import Image

from fuzzyseg.data import DataError, Reader, combine, read_dataset


def put(path, values=((0, 1), (1, 2))):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(values, np.uint8)).save(path)


@pytest.fixture
def first(tmp_path):
    root = tmp_path / "first"
    for part in ("train", "val"):
        put(root / f"images/{part}/x.png")
        put(root / f"masks/{part}/x.png")
    (root / "dataset.yaml").write_text("classes: [sky, road, tree, car]\n")
    return root


def test_classes_of_further_roots_are_found_by_name(first, tmp_path):
    second = tmp_path / "second"
    put(second / "images/x.png")
    put(second / "images/free.png")
    put(second / "masks/x.png", [[0, 1], [2, 9]])
    put(second / "images/val/v.png")
    put(second / "masks/val/v.png", [[255, 0], [0, 0]])
    (second / "dataset.yaml").write_text("classes: [tree, car, sky]\nignore_index: 9\n")
    data = combine(read_dataset(first), more=[second])
    assert data.classes == ["sky", "road", "tree", "car"]
    assert [item.name for item in data.train] == ["train/x", "second/free", "second/x"]
    assert [item.name for item in data.val] == ["val/x", "second/val/v"]
    reader = Reader(1, 4, data.ignore_index)
    assert reader.read(data.train[2], True)[1].tolist() == [[2, 3], [0, 255]]
    assert reader.read(data.val[1], True)[1].tolist() == [[255, 2], [2, 2]]
    assert reader.read(data.train[0], True)[1].tolist() == [[0, 1], [1, 2]]
    put(second / "masks/x.png", [[0, 3], [2, 9]])
    with pytest.raises(DataError, match=r"masks/x\.png: found the values 3 in 1 pixel; expected 0 tree, 1 car, 2 sky"):
        reader.read(data.train[2], True)


def test_a_root_that_names_no_classes_has_the_firsts(first, tmp_path):
    put(tmp_path / "a/b/images/x.png")
    put(tmp_path / "a/b/masks/x.png", [[3, 255], [0, 0]])
    put(tmp_path / "c/b/images/x.png")
    known = read_dataset(first)
    data = combine(known, more=[tmp_path / "a/b", tmp_path / "c/b"])
    assert [item.name for item in data.train] == ["train/x", "b/x", "b_2/x"]
    assert data.classes == known.classes
    assert Reader(1, 4, 255).read(data.train[1], True)[1].tolist() == [[3, 255], [0, 0]]


def test_an_unknown_class_in_a_further_root_is_an_error(first, tmp_path):
    put(tmp_path / "b/images/x.png")
    (tmp_path / "b/dataset.yaml").write_text("classes: [roads, sky]\n")
    with pytest.raises(DataError, match=r"/b: has the class 'roads', which is missing in .*first.*mean 'road'"):
        combine(read_dataset(first), more=[tmp_path / "b"])


def test_a_public_data_set_joins_by_its_names(first, tmp_path):
    city = tmp_path / "city"
    put(city / "leftImg8bit/train/ulm/ulm_1_2_leftImg8bit.png")
    put(city / "gtFine/train/ulm/ulm_1_2_gtFine_labelIds.png", [[7, 23], [0, 26]])
    with pytest.raises(DataError, match="has the class"):
        combine(read_dataset(first), more=[city])
    from fuzzyseg.data.datasets.public import LABELS as CLASSES

    names = ["void thing", *reversed(CLASSES)]
    (first / "dataset.yaml").write_text("classes: [" + ", ".join(names) + "]\n")
    data = combine(read_dataset(first), more=[city])
    item = data.train[-1]
    assert item.name == "city/train/ulm/ulm_1_2"
    result = Reader(1, 20, 255).read(item, True)[1].tolist()
    assert result == [[names.index("road"), names.index("sky")], [255, names.index("car")]]


@pytest.mark.parametrize("form", ["{0}", "{0}/*.png", "{0}/**/*.png", "{0}/new_1.png"])
def test_unlabelled_images_come_from_folders_files_and_patterns(first, tmp_path, form):
    extra = tmp_path / "extra"
    for name in ("new_1", "new_2", "deep/new_3"):
        put(extra / f"{name}.png")
    put(extra / "masks/new_1.png")  # nobody looks for it
    (extra / "notes.txt").write_text("x")
    data = combine(read_dataset(first), unlabelled=[form.format(extra)])
    new = {item.name: item.mask for item in data.train[1:]}
    expected = {
        "{0}": {"new_1", "new_2", "deep/new_3", "masks/new_1"},
        "{0}/*.png": {"new_1", "new_2"},
        "{0}/**/*.png": {"new_1", "new_2", "deep/new_3", "masks/new_1"},
        "{0}/new_1.png": {"new_1"},
    }[form]
    assert new == {f"unlabelled/{name}": None for name in expected}
    assert data.val == read_dataset(first).val


def test_unlabelled_images_are_neither_masks_nor_images_of_val(first, tmp_path):
    put(first / "images/train/free.png")
    put(first / "more/y.png")
    data = combine(read_dataset(first), unlabelled=[str(first), f"{first}/more"])
    assert [item.name for item in data.train] == ["train/free", "train/x", "unlabelled/more/y"]
    assert any("5 files that are already in the dataset" in said for said in data.notes)


def test_sources_without_an_image_are_errors(first, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.txt").write_text("x")
    for source in ("empty", "a.txt", "none*.png"):
        with pytest.raises(DataError, match=r"--unlabelled: .* contains no image"):
            combine(read_dataset(first), unlabelled=[tmp_path / source])
    with pytest.raises(DataError, match=r"--unlabelled: .*nowhere does not exist"):
        combine(read_dataset(first), unlabelled=[tmp_path / "nowhere"])
    put(tmp_path / "twice/a.png")
    put(tmp_path / "twice/a.bmp")
    with pytest.raises(DataError, match="have the same name"):
        combine(read_dataset(first), unlabelled=[f"{tmp_path}/twice/*"])
