import re
import shutil

import numpy as np
import pytest
from PIL import Image

from fuzzyseg.data import DATASETS, DataError, Item, read_dataset
from fuzzyseg.data.dataset_yaml import Description
from fuzzyseg.data.io.header import file_size
from fuzzyseg.data.io.image import read_image
from fuzzyseg.data.io.mask import read_mask
from fuzzyseg.data.labels import decode as labels_module
from fuzzyseg.experiment.load_run import split_of


def put(path, values=((0, 1), (1, 2))):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(values, np.uint8)).save(path)


def names(items):
    return None if items is None else [(item.name, item.mask is not None) for item in items]


def test_camvid_is_recognised_with_its_classes_and_no_mask_is_read(shared, monkeypatch):
    monkeypatch.setattr(labels_module, "read_mask", lambda path, **_: pytest.fail(f"{path} was read"))
    data = read_dataset(shared / "data" / "camvid")
    assert (data.layout, data.ignore_index, len(data.train), len(data.val), data.test) == ("camvid", 11, 367, 101, None)
    assert " ".join(data.classes) == "sky building pole road pavement tree sign_symbol fence car pedestrian bicyclist"
    assert all(item.mask.stem == item.image.stem for item in data.train + data.val)
    assert len({item.name for item in data.train + data.val}) == 468
    assert any("CamVid" in sentence for sentence in data.notes)


def test_camvid_with_dataset_yaml_or_arguments_goes_by_them(shared, tmp_path):
    for part in ("train", "trainannot"):
        (tmp_path / part).mkdir()
        for path in sorted((shared / "data" / "camvid" / part).iterdir())[:2]:
            shutil.copy(path, tmp_path / part)
    assert read_dataset(tmp_path).ignore_index == 11
    twelve = [f"c{i}" for i in range(12)]
    data = read_dataset(tmp_path, classes=twelve)
    assert (data.classes, data.ignore_index) == (twelve, 255)
    (tmp_path / "dataset.yaml").write_text("classes: [" + ", ".join(twelve) + "]\nignore_index: 0\n")
    data = read_dataset(tmp_path)
    assert (data.classes, data.ignore_index) == (twelve, 0)
    assert read_dataset(tmp_path, ignore_index=3).ignore_index == 3


@pytest.mark.parametrize(
    ("values", "count", "ignore", "first"),
    [([[0, 11]], 11, 11, "sky"), ([[0, 13]], 14, 255, "class_0"), ([[0, 2]], 3, 255, "class_0")],
)
def test_other_files_in_camvids_layout_are_camvid_only_if_their_masks_fit(tmp_path, values, count, ignore, first):
    put(tmp_path / "train" / "mine.png")
    put(tmp_path / "trainannot" / "mine.png", values)
    data = read_dataset(tmp_path)
    assert (len(data.classes), data.ignore_index, data.classes[0]) == (count, ignore, first)


def test_flat_folder_pairs_by_stem_and_keeps_nested_folders_in_the_name(tmp_path):
    put(tmp_path / "images" / "b.JPG")
    put(tmp_path / "images" / "a.x.png")
    put(tmp_path / "images" / "night" / "b.tif")
    put(tmp_path / "images" / ".hidden.png")
    put(tmp_path / "masks" / "a.x.png")
    put(tmp_path / "masks" / "night" / "b.PNG")
    data = read_dataset(tmp_path)
    assert data.layout == "folder"
    assert names(data.train) == [("a.x", True), ("b", False), ("night/b", True)]
    assert data.train[2] == Item(tmp_path / "images/night/b.tif", tmp_path / "masks/night/b.PNG", "night/b")
    assert (data.val, data.test) == (None, None)


def below(root, kind, part, name):
    return root / kind / part / name


def above(root, kind, part, name):
    return root / part / kind / name


@pytest.mark.parametrize("place", [below, above])
def test_split_folders_above_or_below(tmp_path, place):
    for part in ("train", "val", "test"):
        put(place(tmp_path, "images", part, "same.png"))
        put(place(tmp_path, "masks", part, "same.png"))
    put(place(tmp_path, "images", "train", "deep/free.png"))
    data = read_dataset(tmp_path)
    assert names(data.train) == [("train/deep/free", False), ("train/same", True)]
    assert names(data.val) == [("val/same", True)]
    assert names(data.test) == [("test/same", True)]
    assert data.val[0].mask == place(tmp_path, "masks", "val", "same.png")


def test_split_folders_in_only_one_of_images_and_masks(tmp_path):
    put(tmp_path / "a/images/train/x.png")
    put(tmp_path / "a/images/val/y.png")
    put(tmp_path / "a/masks/x.png")
    put(tmp_path / "a/masks/y.png")
    data = read_dataset(tmp_path / "a")
    assert (names(data.train), names(data.val)) == ([("train/x", True)], [("val/y", True)])

    put(tmp_path / "b/images/x.png")
    put(tmp_path / "b/images/y.png")
    put(tmp_path / "b/images/z.png")
    put(tmp_path / "b/masks/train/x.png")
    put(tmp_path / "b/masks/val/y.png")
    data = read_dataset(tmp_path / "b")
    assert (names(data.train), names(data.val)) == ([("train/x", True), ("z", False)], [("val/y", True)])

    put(tmp_path / "c/images/train/x.png")
    put(tmp_path / "c/images/val/x.png")
    put(tmp_path / "c/masks/x.png")
    with pytest.raises(DataError, match=r"masks/x\.png: matches several images.*train.*val"):
        read_dataset(tmp_path / "c")
    put(tmp_path / "d/images/x.png")
    put(tmp_path / "d/masks/train/x.png")
    put(tmp_path / "d/masks/val/x.png")
    with pytest.raises(DataError, match=r"images/x\.png: has two masks"):
        read_dataset(tmp_path / "d")


def test_mask_without_image_and_two_files_of_one_name_are_errors(tmp_path):
    put(tmp_path / "a/images/cat_12.png")
    put(tmp_path / "a/masks/cat_12_mask.png")
    with pytest.raises(DataError, match=r"cat_12_mask\.png: is a mask without an image.*mean 'cat_12'"):
        read_dataset(tmp_path / "a")
    for kind in ("images", "masks"):
        root = tmp_path / kind
        put(root / "images/x.png")
        put(root / "masks/x.png")
        put(root / kind / "x.bmp")
        with pytest.raises(DataError, match=rf"{kind}/x\.(png|bmp) and .*{kind}/x\.(png|bmp) have the same name"):
            read_dataset(root)
    put(tmp_path / "e/images/train/x.png")
    put(tmp_path / "e/train/images/x.png")
    with pytest.raises(DataError, match="the same image of split train"):
        read_dataset(tmp_path / "e")


def test_description_names_folders_classes_colours_and_void(tmp_path, monkeypatch):
    monkeypatch.setattr(labels_module, "read_mask", lambda path, **_: pytest.fail(f"{path} was read"))
    put(tmp_path / "photos" / "x.png")
    put(tmp_path / "index maps" / "x.png")
    (tmp_path / "dataset.yaml").write_text(
        "classes: [cat, dog, fox]\ncolours: [[0, 0, 0], [255, 0, 9], [1, 1, 1]]\nignore_index: 9\n"
        "images: photos\nmasks: index maps\n"
    )
    data = read_dataset(tmp_path)
    assert names(data.train) == [("x", True)]
    assert (data.classes, data.ignore_index) == (["cat", "dog", "fox"], 9)
    assert data.colours == [(0, 0, 0), (255, 0, 9), (1, 1, 1)]
    assert read_dataset(tmp_path, classes=["a", "b", "c"], ignore_index=2).classes == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("clases: [a, b]", r"dataset\.yaml: unknown key 'clases'.*'classes'"),
        ("zzz: 1", r"dataset\.yaml: unknown key 'zzz'.*classes, colours, ignore_index, images, masks"),
        ("classes: [no, dog]", r"dataset\.yaml: classes\.0: found False"),
        ("classes: [one]", r"dataset\.yaml: classes"),
        ("classes: [a, a]", r"dataset\.yaml: two classes have the same name"),
        ("classes: [a, b]\ncolours: [[0, 0, 0]]", r"dataset\.yaml: 2 classes but 1 colours"),
        ("colours: [[0, 0, 256]]", r"dataset\.yaml: colours\.0\.2: found 256"),
        ("ignore_index: -40000", r"dataset\.yaml: ignore_index: found -40000"),
        ("- a", r"dataset\.yaml: found list"),
        ("classes: [a", r"dataset\.yaml: is not valid YAML"),
        ("ignore_index: 2020-13-45", r"dataset\.yaml: is not valid YAML"),
        ("ignore_index: !!bool x", r"dataset\.yaml: is not valid YAML"),
        ("ignore_index: !!timestamp x", r"dataset\.yaml: is not valid YAML"),
        ("ignore_index: " + "9" * 5000, r"dataset\.yaml: is not valid YAML"),
        ("images: .", r"dataset\.yaml: .* contains the other"),
        ("masks: images", r"dataset\.yaml: .* contains the other"),
    ],
)
def test_errors_in_the_description_name_file_key_and_the_nearest(tmp_path, text, message):
    put(tmp_path / "images/x.png")
    put(tmp_path / "masks/x.png")
    (tmp_path / "dataset.yaml").write_text(text)
    with pytest.raises(DataError, match=message):
        read_dataset(tmp_path)


def test_misnamed_description_is_not_passed_over(tmp_path):
    put(tmp_path / "images/x.png")
    put(tmp_path / "masks/x.png")
    (tmp_path / "dataset.yml").write_text("ignore_index: 1")
    with pytest.raises(DataError, match=r"dataset\.yml.*rename"):
        read_dataset(tmp_path)


def test_classes_are_counted_in_training_masks_only(tmp_path):
    put(tmp_path / "images/train/x.png")
    put(tmp_path / "masks/train/x.png", [[0, 4], [255, 2]])
    put(tmp_path / "images/val/x.png")
    put(tmp_path / "masks/val/x.png", [[9, 9]])
    data = read_dataset(tmp_path)
    assert data.classes == ["class_0", "class_1", "class_2", "class_3", "class_4"]
    assert data.ignore_index == 255
    assert "5 classes, detected in 1 masks" in data.notes
    assert any("no mask contains the class index 1, 3" in sentence for sentence in data.notes)
    data = read_dataset(tmp_path, ignore_index=4)
    assert (len(data.classes), data.ignore_index) == (3, 4)


@pytest.mark.parametrize(("values", "found"), [([[0, 255]], "0, 255"), ([[0, 0]], "0"), ([[0, 3]], "0, 3")])
def test_fewer_than_two_classes_is_an_error_with_the_values(tmp_path, values, found):
    put(tmp_path / "images/x.png")
    put(tmp_path / "masks/x.png", values)
    with pytest.raises(DataError, match=rf"x\.png.*found only the values {found}; expected at least two classes"):
        read_dataset(tmp_path, ignore_index=3)


def test_too_many_classes_and_damaged_masks_are_named(tmp_path):
    put(tmp_path / "images/x.png")
    (tmp_path / "masks").mkdir()
    Image.fromarray(np.array([[0, 700]], np.uint16)).save(tmp_path / "masks/x.png")
    with pytest.raises(DataError, match=r"x\.png: found the value 700; expected class indices up to 254"):
        read_dataset(tmp_path)
    (tmp_path / "masks/x.png").write_text("text")
    with pytest.raises(DataError, match=r"masks/x\.png"):
        read_dataset(tmp_path)


def test_nothing_recognised_says_what_lies_there_and_what_was_expected(tmp_path):
    with pytest.raises(DataError, match=r"nowhere: does not exist"):
        read_dataset(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"is empty; expected one of these:\n  folder: images/"):
        read_dataset(tmp_path)
    put(tmp_path / "pictures/x.png")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(
        DataError,
        match=r"found notes\.txt, pictures/\.\n.*dataset\.yaml \(images.*\n  folder: images/.*\n  camvid: train/",
    ):
        read_dataset(tmp_path)
    with pytest.raises(DataError, match="is a file"):
        read_dataset(tmp_path / "notes.txt")
    with pytest.raises(DataError, match=r"unknown layout 'foldr'.*'folder'"):
        read_dataset(tmp_path, layout="foldr")
    with pytest.raises(DataError, match="expected one of these:\n  camvid: train"):
        read_dataset(tmp_path, layout="camvid")


def test_two_layouts_that_match_must_be_told_apart(tmp_path):
    for folder in ("images", "masks", "train", "trainannot"):
        put(tmp_path / folder / "x.png")
    with pytest.raises(DataError, match=r"fits several layouts: folder, camvid; choose"):
        read_dataset(tmp_path)
    assert read_dataset(tmp_path, layout="folder").layout == "folder"
    assert read_dataset(tmp_path, layout="camvid").layout == "camvid"


def test_files_of_other_kinds_are_not_passed_over_in_silence(tmp_path):
    put(tmp_path / "images/x.png")
    put(tmp_path / "images/y.png")
    put(tmp_path / "masks/x.png")
    (tmp_path / "masks/y.xcf").write_bytes(b"1")
    assert any("masks: 1 .xcf" in sentence for sentence in read_dataset(tmp_path).notes)
    for path in tmp_path.glob("*/*.png"):
        path.unlink()
    with pytest.raises(DataError, match=r"contains no image.*\.png.*1 \.xcf"):
        read_dataset(tmp_path)


def test_images_alone_need_class_names(tmp_path):
    put(tmp_path / "images/x.png")
    with pytest.raises(DataError, match=r"no image has a mask.*dataset\.yaml"):
        read_dataset(tmp_path)
    assert names(read_dataset(tmp_path, classes=["a", "b"]).train) == [("x", False)]
    with pytest.raises(DataError, match="found 1 class names"):
        read_dataset(tmp_path, classes=["a"])


def test_a_set_with_only_a_val_folder_is_read(tmp_path):
    put(tmp_path / "images/val/x.png")
    put(tmp_path / "masks/val/x.png")
    data = read_dataset(tmp_path)
    assert (data.train, names(data.val), len(data.classes)) == ([], [("val/x", True)], 3)


def test_folders_that_link_in_a_circle_end(tmp_path):
    put(tmp_path / "images/x.png")
    put(tmp_path / "masks/x.png")
    (tmp_path / "images/again").symlink_to(tmp_path / "images", target_is_directory=True)
    assert names(read_dataset(tmp_path).train) == [("x", True)]


def test_every_layout_answers_the_same_questions(tmp_path):
    for layout in DATASETS.values():
        assert layout.expected
        assert not layout.matches(tmp_path, Description())


def test_annotations_that_lie_there_are_not_masks_yet_and_the_command_is_named(tmp_path):
    put(tmp_path / "photos" / "a.png")
    with pytest.raises(DataError) as caught:
        read_dataset(tmp_path)
    assert "convert" not in str(caught.value)
    (tmp_path / "photos" / "a.json").write_text("{}")
    with pytest.raises(DataError, match=rf"`fuzzyseg convert {tmp_path} --out DIR`"):
        read_dataset(tmp_path)


def test_a_split_that_is_not_there_says_which_are(tmp_path):
    put(tmp_path / "images" / "a.png")
    put(tmp_path / "masks" / "a.png")
    with pytest.raises(DataError, match="has no val folder; found train: choose one of them with --split"):
        split_of(read_dataset(tmp_path), "val")


def lots(levels):
    """Lists of ten aliases of the list before."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join(lines) + f"\nclasses: *a{levels - 1}\n"


@pytest.mark.parametrize("text", [lots(9), "classes: &a [*a]\n", "classes: " + "[" * 3000 + "]" * 3000])
def test_a_description_that_grows_without_end_is_refused(tmp_path, text):
    (tmp_path / "dataset.yaml").write_text(text)
    with pytest.raises(DataError, match=r"dataset\.yaml: ") as caught:
        read_dataset(tmp_path)
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize("text", ["ignore: [a]\nignore: [b]\n", "merge: {x: [a], x: [b]}\n", "values: {a: 1, a: 2}\n"])
def test_a_key_that_is_written_twice_is_refused(tmp_path, text):
    (tmp_path / "dataset.yaml").write_text(text)
    with pytest.raises(DataError, match=r"dataset\.yaml: .*the key '(ignore|x|a)' occurs twice(?s:.)*line [12]"):
        read_dataset(tmp_path)


def test_values_that_do_not_fit_are_cut_short_in_the_message(tmp_path):
    (tmp_path / "dataset.yaml").write_text(lots(4))
    with pytest.raises(DataError) as caught:
        read_dataset(tmp_path)
    assert len(str(caught.value)) < 20_000


def test_an_empty_file_is_called_empty_wherever_it_is_met_first(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"")
    for read in (file_size, read_image, read_mask):
        with pytest.raises(DataError, match=r"a\.png: is empty \(0 bytes\)"):
            read(path)


VAL_NAMES = ["val", "Val", "valid", "validation", "VALID", "dev"]


def by_folder(root, name):
    for part, image in (("train", "a"), (name, "b"), ("testing", "c")):
        put(root / "images" / part / f"{image}.png")
        put(root / "masks" / part / f"{image}.png")


def by_folder_above(root, name):
    for part, image in (("training", "a"), (name, "b"), ("test", "c")):
        put(root / part / "images" / f"{image}.png")
        put(root / part / "masks" / f"{image}.png")


def by_image_folder(root, name):
    for part, image in (("train", "a"), (name, "b"), ("test", "c")):
        put(root / "images" / part / f"{image}.png")
        put(root / "masks" / f"{image}.png")


def by_annot(root, name):
    for part, image in (("train", "a"), (name, "b"), ("test", "c")):
        put(root / part / f"{image}.png")
        put(root / f"{part}annot" / f"{image}.png")


def by_voc_list(root, name):
    for part, image in (("train", "a"), (name, "b"), ("test", "c")):
        put(root / "JPEGImages" / f"{image}.png")
        put(root / "SegmentationClass" / f"{image}.png")
        (root / "ImageSets/Segmentation").mkdir(parents=True, exist_ok=True)
        (root / "ImageSets/Segmentation" / f"{part}.txt").write_text(f"{image}\n")


def by_list(root, name):
    for part, image in (("train", "a"), (name, "b"), ("test", "c")):
        put(root / f"{image}.png")
        put(root / f"{image}_mask.png")
        (root / f"{part}.txt").write_text(f"{image}.png {image}_mask.png\n")


def by_table(root, name):
    rows = ["image,mask,split"]
    for part, image in (("train", "a"), (name, "b"), ("test", "c")):
        put(root / f"{image}.png")
        put(root / f"{image}_mask.png")
        rows.append(f"{image}.png,{image}_mask.png,{part}")
    (root / "manifest.csv").write_text("\n".join(rows))


def by_city(root, name):
    for part, image in (("train", "a"), (name, "b"), ("test", "c")):
        put(root / "leftImg8bit" / part / "ulm" / f"{image}_leftImg8bit.png")
        put(root / "gtFine" / part / "ulm" / f"{image}_gtFine_labelIds.png", [[0, 7], [8, 33]])


def by_ade(root, name):
    for part, image in (("training", "a"), (name, "b"), ("test", "c")):
        put(root / "images" / part / f"{image}.png")
        put(root / "annotations" / part / f"{image}.png")


@pytest.mark.parametrize("name", VAL_NAMES)
@pytest.mark.parametrize(
    "layout",
    [by_folder, by_folder_above, by_image_folder, by_annot, by_voc_list, by_list, by_table, by_city, by_ade],
)
def test_every_usual_name_of_the_validation_split_is_read_as_such(tmp_path, layout, name):
    layout(tmp_path, name)
    data = read_dataset(tmp_path)
    result = [[item.image.stem[0] for item in items or []] for items in (data.train, data.val, data.test)]
    assert result == [["a"], ["b"], ["c"]]
    assert data.val[0].mask is not None and data.val[0].name.startswith("val/") == ("/" in data.val[0].name)


def test_two_names_of_one_split_are_joined_and_their_common_files_refused(tmp_path):
    for part, image in (("train", "a"), ("val", "b"), ("valid", "c")):
        put(tmp_path / "images" / part / f"{image}.png")
        put(tmp_path / "masks" / part / f"{image}.png")
    assert names(read_dataset(tmp_path).val) == [("val/b", True), ("val/c", True)]
    put(tmp_path / "images/valid/b.png")
    with pytest.raises(DataError, match="are the same image of split val"):
        read_dataset(tmp_path)


def test_folders_beside_split_folders_are_told(tmp_path):
    for part in ("train", "val", "latest"):
        put(tmp_path / "a/images" / part / f"{part}.png")
        put(tmp_path / "a/masks" / part / f"{part}.png")
        put(tmp_path / "b" / part / "images/x.png")
        put(tmp_path / "b" / part / "masks/x.png")
    below = read_dataset(tmp_path / "a")
    assert names(below.train) == [("latest/latest", True), ("train/train", True)] and below.test is None
    assert any("training images: latest/" in note for note in below.notes)
    above = read_dataset(tmp_path / "b")
    assert names(above.train) == [("train/x", True)]
    assert any("not read: latest/" in note for note in above.notes)


@pytest.mark.parametrize("name", ["valset", "Val_images", "validation-data", "dev split", "val2017_images"])
def test_a_split_folder_may_have_a_word_such_as_set(tmp_path, name):
    for part in ("train_set", name):
        put(tmp_path / "images" / part / "a.png")
        put(tmp_path / "masks" / part / "a.png")
    data = read_dataset(tmp_path)
    assert names(data.train) == [("train/a", True)] and names(data.val) == [("val/a", True)]


def test_a_split_folder_below_another_folder_is_not_trained_on(tmp_path):
    for site in ("north", "south"):
        for part in ("train", "Valid"):
            put(tmp_path / "images" / site / part / "a.png")
            put(tmp_path / "masks" / site / part / "a.png")
    data = read_dataset(tmp_path)
    assert names(data.train) == [("train/north/a", True), ("train/south/a", True)]
    assert names(data.val) == [("val/north/a", True), ("val/south/a", True)]


NFC, NFD = "caf\u00e9 \u5199\u304c", "cafe\u0301 \u5199\u304b\u3099"


@pytest.mark.parametrize(("image", "mask"), [(NFD, NFC), (NFC, NFD), (NFD, NFD)])
@pytest.mark.parametrize("layout", ["folder", "train", "voc", "list", "table"])
def test_names_in_two_unicode_forms_are_paired(tmp_path, layout, image, mask):
    if layout == "voc":
        put(tmp_path / "JPEGImages" / f"{image}.png")
        put(tmp_path / "SegmentationClass" / f"{mask}.png")
        (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
        (tmp_path / "ImageSets/Segmentation/train.txt").write_text(f"{mask}\n", encoding="utf-8")
    elif layout in ("list", "table"):
        put(tmp_path / f"i/{image}.png")
        put(tmp_path / f"m/{mask}.png")
        name = "train.txt" if layout == "list" else "manifest.csv"
        text = f"i/{mask}.png\tm/{image}.png" if layout == "list" else f"image,mask\ni/{mask}.png,m/{image}.png"
        (tmp_path / name).write_text(f"{text}\n", encoding="utf-8")
    else:
        put(tmp_path / "images" / f"{image}.png")
        put(tmp_path / "masks" / ("train" if layout == "train" else "") / f"{mask}.png")
    data = read_dataset(tmp_path)
    assert len(data.train) == 1 and data.train[0].mask is not None
    assert data.train[0].mask.is_file() and data.train[0].image.is_file()


def test_names_that_differ_in_case_get_a_hint(tmp_path):
    put(tmp_path / "images/IMG_0.JPG")
    put(tmp_path / "masks/img_0.png")
    with pytest.raises(DataError, match=r"img_0\.png: is a mask without an image.*'IMG_0'.*only in case"):
        read_dataset(tmp_path)


def test_what_a_macs_archive_adds_is_skipped(tmp_path):
    put(tmp_path / "images/x.png")
    put(tmp_path / "masks/x.png")
    for kind in ("images", "masks"):
        for name in ("__MACOSX/x.png", "._x.png", ".ipynb_checkpoints/x.png"):
            (tmp_path / kind / name).parent.mkdir(exist_ok=True)
            (tmp_path / kind / name).write_bytes(b"\0\5\x16\7")
    assert names(read_dataset(tmp_path).train) == [("x", True)]


def test_nearly_equal_class_names_are_told(tmp_path):
    put(tmp_path / "images/x.png")
    put(tmp_path / "masks/x.png")
    notes = read_dataset(tmp_path, classes=["car", "Car", "traffic sign", "road"]).notes
    assert any("'car' and 'Car'" in note and "road" not in note for note in notes)


@pytest.mark.parametrize("place", ["", "train/"])
@pytest.mark.parametrize("folder", ["labels", "annotations/png", "Labels_png"])
def test_masks_in_another_folder_beside_the_images_are_pointed_at(tmp_path, place, folder):
    for stem in ("x", "night/y"):
        put(tmp_path / f"{place}images/{stem}.jpg")
        put(tmp_path / f"{place}{folder}/{stem}.png")
    put(tmp_path / f"{place}depth/x.png")
    put(tmp_path / f"{place}other/z.png")
    with pytest.raises(DataError) as caught:
        read_dataset(tmp_path, classes=["a", "b"])
    assert f"{folder}/ contains 2 files" in str(caught.value)
    assert "other/" not in str(caught.value)
    (tmp_path / "dataset.yaml").write_text(re.search("`(masks: .*?)`", str(caught.value))[1])
    assert all(item.mask is not None for item in read_dataset(tmp_path).train)


def test_two_folders_of_equal_names_are_pointed_at(tmp_path):
    for stem in ("x", "y", "z"):
        put(tmp_path / f"pictures/{stem}.jpg")
    for stem in ("x", "y"):
        put(tmp_path / f"coloured/{stem}.png")
    put(tmp_path / "coloured/old/x.png")
    with pytest.raises(DataError) as caught:
        read_dataset(tmp_path)
    (tmp_path / "dataset.yaml").write_text("\n".join(re.findall("`((?:images|masks): .*?)`", str(caught.value))))
    (tmp_path / "coloured/old/x.png").unlink()
    assert names(read_dataset(tmp_path).train) == [("x", True), ("y", True), ("z", False)]


def test_a_dataset_above_or_below_is_pointed_at(tmp_path):
    put(tmp_path / "data/set/images/x.png")
    put(tmp_path / "data/set/masks/x.png")
    put(tmp_path / "data/set/train/images/x.png")
    for wrong in ("data", "data/set/images", "data/set/masks", ""):
        with pytest.raises(DataError) as caught:
            read_dataset(tmp_path / wrong)
        hint = str(caught.value).splitlines()[1]
        assert re.findall(rf"{tmp_path / 'data/set'}\b(?!/)", hint.partition(". ")[0].partition(" into ")[0])
        assert str(tmp_path / "data/set/train") not in hint


def test_a_split_given_in_the_place_of_its_dataset_is_warned_of(tmp_path):
    for split in ("train", "valid"):
        put(tmp_path / split / "images/x.png")
        put(tmp_path / split / "masks/x.png")
    (tmp_path / "test").mkdir()
    notes = [note for note in read_dataset(tmp_path / "train").notes if note.startswith("warning")]
    assert len(notes) == 1
    assert f"valid/ are not read; pass {tmp_path} to read all" in notes[0]
    assert not [note for note in read_dataset(tmp_path).notes if note.startswith("warning")]
