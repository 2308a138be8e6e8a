"""VOC with SBD, Cityscapes, ADE20K: small files in the data sets' own trees."""

import numpy as np
import pytest
from PIL import Image

from data.io.test_mat import mat
from fuzzyseg.data import DataError, Reader, read_dataset
from fuzzyseg.data.datasets.public import ADE20K, LABELS
from fuzzyseg.data.datasets.voc import VOC
from fuzzyseg.data.io.write import default_colours
from fuzzyseg.data.loading.reader import check_sizes
from fuzzyseg.data.splits.split import make_split


def image(path, size=(4, 6)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((*size, 3), np.uint8)).save(path)


def mask(path, values, palette=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(np.array(values, np.uint8))
    if palette:
        picture.putpalette([value for colour in default_colours(256) for value in colour])
    picture.save(path)


ROW = np.tile(np.array([0, 1, 15, 20, 255, 0], np.uint8), (4, 1))
BARE = np.where(ROW == 255, 7, ROW)


@pytest.fixture
def voc(tmp_path):
    """7 images: a, b in train, c in val, d in test; e, f are for SBD; g is in no list."""
    base = tmp_path / "VOCdevkit" / "VOC2012"
    stems = ["2007_000032", "2008_000001", "2007_000033", "2007_000999", "2009_000003", "2010_000004", "2011_000005"]
    names = dict(zip("abcdefg", stems, strict=True))
    for name in names.values():
        image(base / "JPEGImages" / f"{name}.jpg")
    for key in "abc":
        mask(base / "SegmentationClass" / f"{names[key]}.png", ROW, palette=True)
    lists = base / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for split, keys in {"train": "ba", "val": "c", "test": "d"}.items():
        (lists / f"{split}.txt").write_text("".join(f"{names[key]}\n" for key in keys))
    return tmp_path, base, names


def listed(items):
    return None if items is None else {item.name: None if item.mask is None else item.mask.suffix for item in items}


def add_sbd(root, names):
    for key in "aefc":
        mat(root / "benchmark_RELEASE/dataset/cls" / f"{names[key]}.mat", BARE)
    mat(root / "benchmark_RELEASE/dataset/cls/2011_009999.mat", BARE)


def test_images_of_a_list_with_another_name_are_told_as_trained_on(voc):
    root, base, names = voc
    lists = base / "ImageSets/Segmentation"
    assert not any(", not listed" in note and names["c"] in note for note in read_dataset(root).notes)
    (lists / "val.txt").rename(lists / "holdout.txt")
    assert any("used for training, not listed" in note and names["c"] in note for note in read_dataset(root).notes)


@pytest.mark.parametrize("place", ["", "VOCdevkit", "VOCdevkit/VOC2012"])
def test_voc_alone_is_its_lists(voc, place):
    root, _, names = voc
    data = read_dataset(root / place)
    assert (data.layout, tuple(data.classes), data.ignore_index) == ("voc", VOC.classes, 255)
    assert listed(data.train) == {names["a"]: ".png", names["b"]: ".png"}
    assert [item.name for item in data.train] == sorted(item.name for item in data.train)
    assert (listed(data.val), listed(data.test)) == ({names["c"]: ".png"}, {names["d"]: None})
    assert any("3 images" in said and "--unlabelled" in said for said in data.notes)
    assert Reader(3, 21, 255).read(data.train[0], True)[1].tolist() == ROW.tolist()


def test_voc_with_sbd_adds_what_is_in_no_list_and_prefers_vocs_own_masks(voc):
    root, _, names = voc
    add_sbd(root, names)
    data = read_dataset(root)
    assert listed(data.train) == {names["a"]: ".png", names["b"]: ".png", names["e"]: ".mat", names["f"]: ".mat"}
    assert listed(data.val) == {names["c"]: ".png"}
    assert any(said.startswith("2 more masks") for said in data.notes)
    assert any("1 masks have no image" in said for said in data.notes)
    item = next(item for item in data.train if item.name == names["e"])
    assert Reader(3, 21, 255).read(item, True)[1].tolist() == BARE.tolist()
    check_sizes(data.train)
    plain = read_dataset(root, layout="voc_plain")
    assert listed(plain.train) == {names["a"]: ".png", names["b"]: ".png"}
    assert plain.layout == "voc_plain"


def test_voc_with_the_augmented_masks_as_png(voc):
    root, base, names = voc
    for key in "abcef":
        mask(base / "SegmentationClassAug" / f"{names[key]}.png", BARE)
    data = read_dataset(root)
    assert set(listed(data.train)) == {names[key] for key in "abef"}
    assert data.train[0].mask.parent.name == "SegmentationClass"
    assert {item.mask.parent.name for item in data.train if item.name in (names["e"], names["f"])} == {
        "SegmentationClassAug"
    }


def test_all_masks_in_one_folder_are_used_but_those_of_val_only_there(voc):
    root, base, names = voc
    for key in "ef":
        mask(base / "SegmentationClass" / f"{names[key]}.png", BARE)
    assert set(listed(read_dataset(root).train)) == {names[key] for key in "abef"}
    assert set(listed(read_dataset(root, layout="voc_plain").train)) == {names[key] for key in "ab"}


def test_the_standard_split_is_each_nth_image_of_the_sorted_list(voc):
    root, _, names = voc
    add_sbd(root, names)
    data = read_dataset(root)
    order = sorted(names[key] for key in "abef")
    split = make_split(data, labelled="every:3", policy="random")
    assert [item.name for item in split.labelled] == [order[0], order[3]]
    assert sorted(item.name for item in split.unlabelled) == [order[1], order[2]]
    assert all(item.mask is None for item in split.unlabelled)
    assert [item.name for item in split.val] == [names["c"]]
    for wrong in ("every:0", "every:x", "every:"):
        with pytest.raises(DataError, match="every:N"):
            make_split(data, labelled=wrong)


@pytest.mark.parametrize(
    "line",
    ["{0}", "JPEGImages/{0}.jpg SegmentationClass/{0}.png", "/JPEGImages/{0}.jpg\t/SegmentationClassAug/{0}.png"],
)
@pytest.mark.parametrize("place", ["", "VOCdevkit/VOC2012"])
def test_low_data_lists_are_read_in_each_published_form(voc, tmp_path, line, place):
    root, _, names = voc
    add_sbd(root, names)
    path = tmp_path / "labeled.txt"
    path.write_text("\n".join(line.format(names[key]) for key in "b"))
    split = make_split(read_dataset(root / place), labelled=str(path))
    assert [item.name for item in split.labelled] == [names["b"]]
    assert {item.name for item in split.unlabelled} == {names[key] for key in "aef"}  # SBD lies beside VOCdevkit


@pytest.mark.parametrize("form", ["{}", "{}.jpg", r"JPEGImages\{}.jpg SegmentationClass\{}.png", "{}  # easy"])
def test_vocs_lists_may_have_other_forms(voc, form):
    root, base, _ = voc
    before = read_dataset(root)
    for path in (base / "ImageSets/Segmentation").glob("*.txt"):
        lines = [form.format(name, name) for name in path.read_text().split()]
        path.write_bytes("\r\n".join(["# names", *lines, " "]).encode("utf-16"))
    data = read_dataset(root)
    assert (data.train, data.val) == (before.train, before.val)


def test_voc_says_what_does_not_fit(voc):
    root, base, _names = voc
    (base / "ImageSets/Segmentation/train.txt").write_text("2007_000032\n2007_123456\n")
    with pytest.raises(DataError, match=r"train\.txt: 1 images are not in .*2007_123456"):
        read_dataset(root)
    (base / "ImageSets/Segmentation/train.txt").write_text("2007_000032\n")
    mask(base / "SegmentationClass" / "2012_000001.png", ROW)
    with pytest.raises(DataError, match=r"2012_000001\.png: is a mask without an image"):
        read_dataset(root)


def test_a_tools_folder_in_vocs_form_has_its_own_classes(tmp_path, shared):
    data = read_dataset(shared / "formats" / "labelme_as_voc")
    assert (data.layout, len(data.train), data.val, len(data.classes)) == ("voc", 3, None, 21)
    assert data.classes[0] == "background" and data.classes[-1] == "tv/monitor"
    image(tmp_path / "JPEGImages/one.png")
    mask(tmp_path / "SegmentationClass/one.png", ROW % 3)
    assert read_dataset(tmp_path).classes == ["class_0", "class_1", "class_2"]
    (tmp_path / "class_names.txt").write_text("__ignore__\n_background_\ncat\ndog\n")
    assert read_dataset(tmp_path).classes == ["background", "cat", "dog"]
    (tmp_path / "class_names.txt").unlink()
    (tmp_path / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\nroad:1,2,3::\nsky: 4,5,6 ::\na:b:7,8,9::\n"
    )
    data = read_dataset(tmp_path)
    assert (data.classes, data.colours) == (["road", "sky", "a:b"], [(1, 2, 3), (4, 5, 6), (7, 8, 9)])


@pytest.fixture
def city(tmp_path):
    for folder, town in (
        ("train", "ulm"),
        ("train", "jena"),
        ("val", "bonn"),
        ("test", "kiel"),
        ("train_extra", "bad_x"),
    ):
        for number in range(2):
            stem = f"{town}_{number:06}_000019"
            image(tmp_path / "leftImg8bit" / folder / town / f"{stem}_leftImg8bit.png")
            ids = np.arange(24, dtype=np.uint8).reshape(4, 6) + 10 * number
            if folder != "train_extra":
                mask(tmp_path / "gtFine" / folder / town / f"{stem}_gtFine_labelIds.png", ids)
                mask(tmp_path / "gtFine" / folder / town / f"{stem}_gtFine_instanceIds.png", ids)
                mask(tmp_path / "gtFine" / folder / town / f"{stem}_gtFine_color.png", ids)
            mask(tmp_path / "gtCoarse" / folder / town / f"{stem}_gtCoarse_labelIds.png", ids)
    return tmp_path


def test_cityscapes_label_ids_become_19_classes(city):
    data = read_dataset(city)
    assert (data.layout, len(data.classes), data.ignore_index) == ("cityscapes", 19, 255)
    assert [item.name for item in data.val] == ["val/bonn/bonn_000000_000019", "val/bonn/bonn_000001_000019"]
    assert len(data.train) == 6
    assert {item.name: item.mask is not None for item in data.train} == {
        **{f"train/{town}/{town}_00000{n}_000019": True for town in ("ulm", "jena") for n in (0, 1)},
        **{f"train_extra/bad_x/bad_x_00000{n}_000019": False for n in (0, 1)},
    }
    assert [item.mask for item in data.test] == [None, None]  # dummies
    labels = Reader(3, 19, 255).read(data.val[1], True)[1]
    names = list(LABELS)
    for value, result in zip(range(10, 34), labels.flatten().tolist(), strict=True):
        expected = next((names.index(name) for name, number in LABELS.items() if number == value), 255)
        assert result == expected, value
    assert names[0] == "road" and LABELS["road"] == 7 and LABELS["bicycle"] == 33


def test_cityscapes_train_ids_are_taken_where_they_are(city):
    for path in sorted((city / "gtFine" / "train").glob("*/*_labelIds.png"))[:3]:
        mask(path.with_name(path.name.replace("labelIds", "labelTrainIds")), [[0, 18, 255, 5, 5, 5]] * 4)
    data = read_dataset(city)
    kinds = [item.mask.stem.split("_")[-1] for item in data.train if item.mask]
    assert sorted(kinds) == ["labelIds", *["labelTrainIds"] * 3]
    assert "3 masks are labelTrainIds files" in data.notes
    item = next(item for item in data.train if item.mask and "TrainIds" in item.mask.name)
    assert Reader(3, 19, 255).read(item, True)[1][0].tolist() == [0, 18, 255, 5, 5, 5]


def test_cityscapes_names_of_ids_that_do_not_exist_and_masks_without_images(city):
    path = next((city / "gtFine/train/ulm").glob("*_labelIds.png"))
    mask(path, [[40] * 6] * 4)
    data = read_dataset(city)
    with pytest.raises(DataError, match=r"labelIds\.png: found the values 40 in 24 pixels; expected City"):
        make_split(data, labelled="2")
    mask(city / "gtFine/train/ulm/ulm_9_9_gtFine_labelIds.png", [[1]])
    with pytest.raises(DataError, match=r"ulm_9_9.*is a mask without an image"):
        read_dataset(city)


@pytest.mark.parametrize(
    "line",
    [
        "leftImg8bit/train/ulm/ulm_000001_000019_leftImg8bit.png",
        "leftImg8bit/train/ulm/ulm_000001_000019_leftImg8bit.png gtFine/train/ulm/ulm_000001_000019_gtFine_x.png",
        "/images/train/ulm_000001_000019.png\t/segmentation/train/ulm_000001_000019_gtFine.png",
        "train/ulm/ulm_000001_000019",
    ],
)
def test_cityscapes_lists_are_read_in_each_published_form(city, line):
    (city / "list.txt").write_text(line + "\n")
    split = make_split(read_dataset(city), labelled=str(city / "list.txt"))
    assert [item.name for item in split.labelled] == ["train/ulm/ulm_000001_000019"]
    assert len(split.unlabelled) == 5


def test_a_list_of_another_data_set_is_not_taken(city):
    (city / "list.txt").write_text("/images/train/rome_1.png\t/segmentation/train/rome_1_gtFine.png\n")
    with pytest.raises(DataError, match=r"list\.txt, line 1: found no image"):
        make_split(read_dataset(city), labelled=str(city / "list.txt"))
    (city / "list.txt").write_text("elsewhere/ulm_000001_000019\n")  # no published form: the path must be right
    with pytest.raises(DataError, match=r"line 1: found no image 'elsewhere/ulm"):
        make_split(read_dataset(city), labelled=str(city / "list.txt"))


@pytest.mark.parametrize("above", ["", "ADEChallengeData2016"])
def test_ade20k_reduces_zero(tmp_path, above):
    base = tmp_path / above
    for folder, kind in (("training", "train"), ("validation", "val")):
        image(base / "images" / folder / f"ADE_{kind}_00000001.jpg", (1, 5))
        mask(base / "annotations" / folder / f"ADE_{kind}_00000001.png", [[0, 1, 2, 149, 150]])
    data = read_dataset(tmp_path)
    assert (data.layout, len(data.classes), data.ignore_index) == ("ade20k", 150, 255)
    assert ADE20K.classes[0] == "wall" and ADE20K.classes[149] == "flag" and len(set(ADE20K.classes)) == 150
    assert [item.name for item in data.train + data.val] == ["train/ADE_train_00000001", "val/ADE_val_00000001"]
    assert Reader(3, 150, 255).read(data.val[0], True)[1].tolist() == [[255, 0, 1, 148, 149]]
    mask(base / "annotations/training/ADE_train_00000001.png", [[0, 1, 2, 149, 151]])
    with pytest.raises(DataError, match=r"00000001\.png: found the values 151 in 1 pixel;"):
        make_split(data, labelled="1")
