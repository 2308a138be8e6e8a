"""Lists and tables of images."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from fuzzyseg.data import DataError, read_dataset
from fuzzyseg.data.datasets.tables import fields


def put(path, values=((0, 1), (1, 2))):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(values, np.uint8)).save(path)


def names(items):
    return None if items is None else {item.name: item.mask and item.mask.name for item in items}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a/x.jpg b/x.png", ("a/x.jpg", "b/x.png")),
        ("/a/x.png\t/b/x_gtFine.png", ("/a/x.png", "/b/x_gtFine.png")),
        ("my photos/x 1.JPG   the masks/x 1.png", ("my photos/x 1.JPG", "the masks/x 1.png")),
        ("my photos/x 1.jpg", ("my photos/x 1.jpg", None)),
        ("2007_000032", ("2007_000032", None)),
        ("a/x #1.jpg cls/x #1.mat", ("a/x #1.jpg", "cls/x #1.mat")),
        ("a #1.jpg", ("a #1.jpg", None)),
        ("a/x.jpg\t", ("a/x.jpg", None)),
        ("x.png.jpg y.png", ("x.png.jpg", "y.png")),
    ],
)
def test_a_line_is_an_image_and_perhaps_a_mask(line, expected):
    assert fields(line) == expected


@pytest.fixture
def root(tmp_path):
    for number in range(5):
        put(tmp_path / f"train2017/{number}.jpg")
        put(tmp_path / f"masks/{number}.png")
    return tmp_path


def test_lists_at_the_top_are_recognised(root):
    (root / "labeled.txt").write_text("train2017/0.jpg masks/0.png\n\n# no image\n/train2017/1.jpg\t/masks/1.png\n")
    (root / "unlabeled.txt").write_text(
        "train2017/2.jpg masks/2.png\ntrain2017/3.jpg masks/nowhere.png\ntrain2017/0.jpg x.png\n"
    )
    (root / "val.txt").write_text("train2017/4.jpg masks/4.png\n")
    data = read_dataset(root)
    assert data.layout == "lists"
    assert names(data.train) == {
        "train2017/0": "0.png",
        "train2017/1": "1.png",
        "train2017/2": None,
        "train2017/3": None,
    }
    assert names(data.val) == {"train2017/4": "4.png"}
    assert data.test is None
    assert len(data.classes) == 3


def test_lists_elsewhere_are_named_in_the_description(root):
    put(root / "train2017/5.jpg")
    (root / "splits").mkdir()
    (root / "splits/a.txt").write_text("train2017/0.jpg masks/0.png\n")
    (root / "splits/b.txt").write_text("train2017/1.jpg masks/1.png\ntrain2017/1.jpg masks/1.png\n")
    (root / "dataset.yaml").write_text(
        "classes: [a, b, c]\nlists: {train: [splits/a.txt, splits/b.txt], unlabelled: splits/c.txt}\n"
    )
    with pytest.raises(DataError, match=r"dataset\.yaml: lists\.unlabelled: .*c\.txt does not exist"):
        read_dataset(root)
    (root / "splits/c.txt").write_text("train2017/5.jpg\n")
    data = read_dataset(root)
    assert names(data.train) == {"train2017/0": "0.png", "train2017/1": "1.png", "train2017/5": None}
    (root / "dataset.yaml").write_text("lists: {training: a.txt}\n")
    with pytest.raises(DataError, match=r"lists\.training"):
        read_dataset(root)


def test_lists_that_do_not_fit_are_errors(root):
    (root / "train.txt").write_text("train2017/0.jpg masks/0.png\ntrain2017/7.jpg masks/9.png\n")
    with pytest.raises(DataError, match=r"train\.txt: 2 files cannot be read: .*7\.jpg does not exist, .*9\.png does"):
        read_dataset(root)
    (root / "train.txt").write_text("train2017/0.jpg masks/0.png\n")
    (root / "val.txt").write_text("train2017/0.jpg masks/0.png\n")
    with pytest.raises(DataError, match=r"val\.txt: contains .*0\.jpg, which is in a list for train"):
        read_dataset(root)
    put(root / "train2017/0.png")
    (root / "val.txt").write_text("train2017/0.png masks/0.png\n")
    with pytest.raises(DataError, match=r"are both named train2017/0"):
        read_dataset(root)


def test_a_folder_with_lists_of_bare_names_stays_a_folder(tmp_path):
    put(tmp_path / "images/x.png")
    put(tmp_path / "masks/x.png")
    (tmp_path / "train.txt").write_text("x\n")
    data = read_dataset(tmp_path)
    assert data.layout == "folder" and not any(".txt" in note for note in data.notes)
    (tmp_path / "Valid.txt").write_text("x\n")
    assert any(
        f"without --val {tmp_path / 'Valid.txt'}, its images are used for training" in note
        for note in read_dataset(tmp_path).notes
    )
    (tmp_path / "Valid.txt").unlink()
    (tmp_path / "train.txt").write_text("images/x.png masks/x.png\n")
    with pytest.raises(DataError, match="fits several layouts: folder, lists"):
        read_dataset(tmp_path)


ROWS = [
    ("train2017/0.jpg", "masks/0.png", ""),
    ("train2017/1.jpg", "masks/1.png", "val"),
    ("train2017/2.jpg", "", "train"),
    ("train2017/3.jpg", "masks/3.png", "unlabelled"),
]


def csv_text(rows, mark=",", head=("image", "mask", "split")):
    return "\n".join(mark.join(row) for row in [head, *rows]) + "\n"


def json_lines(rows):
    return "\n".join(json.dumps(dict(zip(("image", "mask", "split"), row, strict=True))) for row in rows) + "\n\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("manifest.csv", csv_text(ROWS)),
        ("manifest.csv", "\ufeff" + csv_text(ROWS, ";")),
        ("manifest.csv", csv_text([row[::-1] for row in ROWS], "\t", ("split", "mask", "image"))),
        ("manifest.jsonl", json_lines(ROWS)),
        ("mine.csv", csv_text(ROWS)),
        ("mine.jsonl", json_lines(ROWS)),
    ],
)
def test_a_table_names_images_masks_and_splits(root, name, text):
    (root / name).write_text(text, encoding="utf-8")
    data = read_dataset(root if name.startswith("manifest") else root / name)
    assert (data.layout, data.root) == ("manifest", root)
    assert names(data.train) == {"train2017/0": "0.png", "train2017/2": None, "train2017/3": None}
    assert names(data.val) == {"train2017/1": "1.png"}


def test_a_table_may_name_files_anywhere_and_reads_the_description_beside_it(root, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    put(other / "y.png")
    (root / "t").mkdir()
    (root / "t/mine.csv").write_text(
        csv_text([("../train2017/0.jpg", "../masks/0.png", "train"), (str(other / "y.png"), "", "train")])
    )
    (root / "t/dataset.yaml").write_text("classes: [a, b, c, d]\n")
    data = read_dataset(root / "t/mine.csv")
    assert data.classes == ["a", "b", "c", "d"]
    assert len(data.train) == 2 and len({item.name for item in data.train}) == 2


def test_rows_without_a_split_among_others_are_told(root):
    rows = [(f"train2017/{n}.jpg", f"masks/{n}.png", split) for n, split in enumerate(["train", "", "val", " "])]
    (root / "manifest.csv").write_text(csv_text(rows))
    assert any("no split in lines 3, 5, which are used for training" in note for note in read_dataset(root).notes)
    (root / "manifest.csv").write_text(csv_text([(*row[:2], "") for row in rows]))
    assert not any("no split" in note for note in read_dataset(root).notes)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("manifest.csv", "picture,mask\na,b\n", r"manifest\.csv: found the columns picture, mask"),
        ("manifest.csv", csv_text([*ROWS, ("train2017/9.jpg", "", "")]), r"line 6: .*9\.jpg does not exist"),
        (
            "manifest.csv",
            csv_text([("train2017/0.jpg", "masks/0.png", "vall")]),
            r"line 2: found the split 'vall'.*mean 'val'",
        ),
        ("manifest.csv", csv_text([("", "masks/0.png", "val")]), r"line 2: has no image"),
        ("manifest.csv", csv_text([ROWS[0], ROWS[0]]), r"line 3: .*0\.jpg is also in line 2"),
        ("manifest.csv", csv_text(ROWS).encode("utf-16") + b"x", r"manifest\.csv: cannot be read as a table"),
        ("manifest.jsonl", '{"image": "train2017/0.jpg"}\n{"image"\n', r"line 2: is not JSON"),
        ("manifest.jsonl", '["a"]\n', r"line 1: found"),
        ("manifest.jsonl", '{"image": 3}\n', r"line 1: found"),
        ("manifest.jsonl", "[" * 100000, r"line 1: is not JSON"),
    ],
)
def test_errors_in_a_table_name_file_and_line(root, name, text, message):
    path = root / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=message):
        read_dataset(root)


def test_further_columns_are_told_and_two_tables_are_one_too_many(root):
    (root / "manifest.csv").write_text("image,mask,patient\ntrain2017/0.jpg,masks/0.png,7\n")
    assert any("ignored columns: patient" in said for said in read_dataset(root).notes)
    (root / "manifest.jsonl").write_text(json_lines(ROWS))
    with pytest.raises(DataError, match="expected one of them"):
        read_dataset(root)


def test_files_outside_of_the_folder_are_told(root):
    outside = root.parent / "elsewhere.png"
    Image.new("RGB", (4, 4)).save(outside)
    (root / "train.txt").write_text("train2017/0.jpg masks/0.png\ntrain2017/1.jpg masks/1.png\n")
    assert not any(" outside " in text for text in read_dataset(root).notes)
    with (root / "train.txt").open("a") as file:
        file.write(f"../{outside.name}\n")
    assert any("train.txt: 3 images for train; 1 file outside" in text for text in read_dataset(root).notes)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("place", ["", "lists"])
def test_lists_as_windows_writes_them(root, encoding, place):
    put(root / "train2017/é 5.jpg")
    put(root / "masks/é 5.png")
    lines = ["# a comment", r"train2017\0.jpg masks\0.png  ", "train2017\\é 5.jpg\tmasks\\é 5.png", "", "  "]
    (root / place).mkdir(exist_ok=True)
    (root / place / "train.txt").write_bytes("\r\n".join(lines).encode(encoding))
    (root / place / "val.txt").write_bytes(".\\train2017\\1.jpg .\\masks\\1.png\r\n".encode(encoding))
    if place:
        (root / "dataset.yaml").write_text("lists: {train: lists\\train.txt, val: lists/val.txt}\n")
    data = read_dataset(root)
    assert names(data.train) == {"train2017/0": "0.png", "train2017/é 5": "é 5.png"}
    assert names(data.val) == {"train2017/1": "1.png"}


def test_a_comment_behind_a_name_is_no_part_of_a_list(root):
    put(root / "train2017/0 #1.jpg")
    (root / "train.txt").write_text("# all\ntrain2017/0.jpg masks/0.png\ntrain2017/0 #1.jpg masks/1.png\n")
    assert names(read_dataset(root).train) == {"train2017/0": "0.png", "train2017/0 #1": "1.png"}
    with (root / "train.txt").open("a") as file:
        file.write("train2017/1.jpg masks/1.png  # why\ntrain2017/1.jpg\t# why\n")
    assert [item.name for item in read_dataset(root).train][-1] == "train2017/1"
    with (root / "train.txt").open("a") as file:
        file.write("train2017/2.jpg masks/2.png # why\n")
    with pytest.raises(DataError, match=r"train\.txt: 1 file cannot be read.*a comment starts a line"):
        read_dataset(root)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
@pytest.mark.parametrize("table", ["train.txt", "manifest.csv"])
def test_a_pipe_or_a_device_is_called_what_it_is(tmp_path, table):
    put(tmp_path / "a.png")
    put(tmp_path / "m.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "device.png").symlink_to("/dev/null")
    for name, word in (("pipe", "a pipe"), ("device", "a device"), ("folder", "a folder")):
        for row in ((f"{name}.png", "m.png"), ("a.png", f"{name}.png")):
            text = csv_text([(*row, "train")]) if table.endswith("csv") else "a.png m.png\n" + " ".join(row)
            (tmp_path / table).write_text(text)
            with pytest.raises(DataError, match=rf"{table}.*{name}\.png is {word}"):
                read_dataset(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
@pytest.mark.parametrize("name", ["val.txt", "classes.csv"])
def test_pipes_among_lists_and_tables_are_refused_and_not_waited_for(root, name):
    (root / "train.txt").write_text("train2017/0.jpg masks/0.png\n")
    os.mkfifo(root / name)
    with pytest.raises(DataError, match=f"{name}: is a pipe"):
        read_dataset(root)


def test_a_list_that_is_a_link_to_nothing_is_an_error(root):
    """Passed over, its images were trained on."""
    (root / "train.txt").write_text("train2017/0.jpg masks/0.png\n")
    (root / "val.txt").symlink_to(root / "gone.txt")
    with pytest.raises(DataError, match=r"val\.txt: cannot be read"):
        read_dataset(root)


def test_the_names_of_columns_may_be_in_upper_case(root):
    rows = [["a.png", "", "train"], ["b.png", "", "Val"]]
    for path in ("a.png", "b.png"):
        put(root / path)
    (root / "manifest.csv").write_text(csv_text(rows, head=("Image", "MASK", "Split")))
    data = read_dataset(root / "manifest.csv", classes=["a", "b"])
    assert [item.name for item in data.train] == ["a"] and [item.name for item in data.val] == ["b"]
