"""LabelMe: real files against the tool's own masks; small ones against their shapes."""

import base64
import io
import json
import random
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from fuzzyseg.data import DataError, Reader, read_dataset
from fuzzyseg.data.annotations import read_annotations, write_dataset
from fuzzyseg.data.labels.class_lists import read_lines
from fuzzyseg.experiment import convert

SIZE = (20, 30)


def shape(label, points, kind="polygon", **more):
    return {"label": label, "points": points, "shape_type": kind, "flags": {}, "group_id": None, **more}


def box(x0, y0, x1, y1):
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]


def write(root, name="a", shapes=(), image=True, **more):
    path = root / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    if image:
        Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(root / f"{name}.png")
    content = {
        "version": "5.0.0",
        "shapes": shapes,
        "imagePath": f"{path.stem}.png",
        "imageData": None,
    }
    path.write_text(json.dumps({**content, "imageHeight": SIZE[0], "imageWidth": SIZE[1], **more}))
    return path


def masks(source, out, labels=None):
    _, failures = write_dataset(read_annotations(source, labels), out)
    assert not failures
    return {path.stem: np.array(Image.open(path)) for path in sorted((out / "masks").rglob("*.png"))}


def test_real_files_equal_the_tools_own_masks(shared, tmp_path):
    source, truth = shared / "formats" / "labelme", shared / "formats" / "labelme_as_voc"
    result = convert(source, tmp_path / "out", labels=source / "labels.txt")
    assert (result.written, result.failures) == ({"images": 3, "masks": 3}, [])
    names = (truth / "class_names.txt").read_text().split("\n")
    assert result.classes == ["background", *names[1:]]
    total = different = 0
    for path in sorted((truth / "SegmentationClass").glob("*.png")):
        expected, found = np.array(Image.open(path)), np.array(Image.open(tmp_path / "out/masks" / path.name))
        assert expected.shape == found.shape
        assert set(np.unique(found)) == set(np.unique(expected))  # 255 (__ignore__) among them
        total, different = total + expected.size, different + int((expected != found).sum())
        # The image is the annotated one, byte by byte.
        name = f"{path.stem}.jpg"
        assert (tmp_path / "out/images" / name).read_bytes() == (source / name).read_bytes()
    # 1 pixel of 544,000 differs, at an edge of a sofa and a person: Pillow has drawn polygons a little otherwise since.
    assert different <= 0.0001 * total
    mine, theirs = read_dataset(tmp_path / "out"), read_dataset(truth)
    assert (mine.classes, mine.ignore_index, len(mine.train)) == (theirs.classes, theirs.ignore_index, 3)
    image, mask = Reader(3, 21, mine.ignore_index).read(mine.train[0], True)
    assert image.shape[1:] == mask.shape


def test_later_shapes_win_holes_are_background_and_ignore_is_void(tmp_path):
    shapes = [
        shape("car", box(2, 2, 15, 15)),
        shape("tree", box(10, 10, 25, 18)),
        shape("_background_", box(4, 4, 6, 6)),
        shape("__ignore__", box(20, 12, 22, 14)),
    ]
    write(tmp_path / "in", shapes=shapes)
    expected = np.zeros(SIZE, int)
    for value, (x0, y0, x1, y1) in (
        (1, (2, 2, 15, 15)),
        (2, (10, 10, 25, 18)),
        (0, (4, 4, 6, 6)),
        (255, (20, 12, 22, 14)),
    ):
        expected[y0 : y1 + 1, x0 : x1 + 1] = value
    np.testing.assert_array_equal(masks(tmp_path / "in", tmp_path / "out")["a"], expected)
    # The order of the labels is the order of the indices; without a background what is under no shape is void.
    swapped = np.choose(np.where(expected == 255, 3, expected), [255, 1, 0, 255])
    result = masks(tmp_path / "in", tmp_path / "out2", ["__ignore__", "tree", "car"])["a"]
    np.testing.assert_array_equal(result, swapped)
    data = read_dataset(tmp_path / "out2")
    assert (data.classes, data.ignore_index) == (["tree", "car"], 255)


def encoded(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()


def test_every_kind_of_shape_is_drawn(tmp_path):
    pixels = np.array([[1, 0, 1], [0, 1, 1]], bool)
    kinds = {
        "rectangle": [[12, 9], [3, 2]],
        "circle": [[10, 8], [13, 12]],
        "line": [[2, 5], [20, 5]],
        "linestrip": [[2, 5], [20, 5], [20, 15]],
        "point": [[9, 9]],
        "points": [[6, 9], [22, 9]],
        "mask": [[4.2, 5.1], [6.2, 6.1]],
    }
    for kind, points in kinds.items():
        more = {"mask": encoded(pixels)} if kind == "mask" else {}
        write(tmp_path / "in", kind, [shape("x", points, kind, **more)])
    result = {name: mask == 1 for name, mask in masks(tmp_path / "in", tmp_path / "out").items()}
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    np.testing.assert_array_equal(result["rectangle"], (x >= 3) & (x <= 12) & (y >= 2) & (y <= 9))
    distance = np.hypot(x - 10, y - 8)
    assert result["circle"][distance < 4.4].all() and not result["circle"][distance > 5.6].any()
    assert result["line"][1:9, 2:20].all() and not result["line"][12:].any()
    assert result["linestrip"][1:9, 2:15].all() and result["linestrip"][8:14, 17:23].all()
    near = np.hypot(x - 9, y - 9)
    assert result["point"][near < 4.4].all() and not result["point"][near > 5.6].any()
    assert result["points"].sum() == pytest.approx(2 * result["point"].sum(), abs=4)
    expected = np.zeros(SIZE, bool)
    expected[5:7, 4:7] = pixels
    np.testing.assert_array_equal(result["mask"], expected)


@pytest.mark.parametrize("start", [4.0, 4.4, 4.5, 5.5, 4.6])
def test_a_mask_shape_that_was_moved_by_a_part_of_a_pixel_is_drawn_whole(tmp_path, start):
    pixels = np.array([[1, 0, 1], [0, 1, 1]], bool)
    points = [[start, start + 1], [start + 2, start + 2]]
    write(tmp_path / "in", "a", [shape("x", points, "mask", mask=encoded(pixels))])
    result = masks(tmp_path / "in", tmp_path / "out")["a"]
    y, x = np.argwhere(result).min(0)
    np.testing.assert_array_equal(result[y : y + 2, x : x + 3], pixels)
    assert result.sum() == 4 and abs(x - start) <= 0.5 and abs(y - start - 1) <= 0.5


TILTED = [[4, 2], [14, 6], [12, 14], [2, 9]]


@pytest.mark.parametrize("kind", ["oriented_rectangle", "rotation", "quadrilateral", "rectangle"])
def test_rectangles_of_four_points_are_polygons(tmp_path, kind):
    write(tmp_path / "in", "a", [shape("x", TILTED, kind)])
    write(tmp_path / "in", "b", [shape("x", TILTED, "polygon")])
    result = masks(tmp_path / "in", tmp_path / "out")
    assert result["a"].any()
    np.testing.assert_array_equal(result["a"], result["b"])


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_base64_may_have_line_breaks(tmp_path, end):
    picture = np.random.default_rng(0).integers(0, 255, (*SIZE, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="PNG")
    held = base64.encodebytes(file.getvalue()).decode().replace("\n", end)
    pixels = np.random.default_rng(1).random((9, 19)) > 0.5
    text = end.join(encoded(pixels)[i : i + 20] for i in range(0, len(encoded(pixels)), 20))
    write(tmp_path / "in", "a", [shape("x", [[0, 0], [18, 8]], "mask", mask=text)], imageData=held, image=False)
    np.testing.assert_array_equal(masks(tmp_path / "in", tmp_path / "out")["a"][:9, :19], pixels)
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "out/images/a.png")), picture)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-8-sig", "utf-32"])
def test_json_in_another_unicode_encoding_is_read(tmp_path, encoding):
    path = write(tmp_path / "in", "a", [shape("车", box(0, 0, 3, 3))])
    path.write_bytes(json.dumps(json.loads(path.read_text()), ensure_ascii=False).encode(encoding))
    assert read_annotations(tmp_path / "in").classes == ["background", "车"]


def test_json_in_gbk_names_the_encoding(tmp_path):
    path = write(tmp_path / "in", "a", [shape("x", box(0, 0, 3, 3))])
    path.write_bytes(path.read_text().replace('"x"', '"汽车"').encode("gbk"))
    with pytest.raises(DataError, match=r"a\.json: is not encoded as UTF-8.*GBK"):
        read_annotations(tmp_path / "in")


def test_files_of_the_system_are_skipped(tmp_path):
    write(tmp_path / "in", "a", [shape("x", box(0, 0, 3, 3))])
    for name in ("._a.json", "._a.png", "__MACOSX/._a.json", "__MACOSX/a.json", ".ipynb_checkpoints/a.json"):
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"\0\5\x16\7")
    assert [picture.name for picture in read_annotations(tmp_path / "in").pictures] == ["a"]


def test_images_are_found_by_names_in_another_unicode_form(tmp_path):
    write(tmp_path / "in", "a", [shape("x", box(0, 0, 3, 3))], image=False, imagePath="caf\u00e9.png")
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(tmp_path / "in/cafe\u0301.png")
    assert masks(tmp_path / "in", tmp_path / "out")["a"].any()


def test_labels_are_stripped_and_nearly_equal_ones_are_told(tmp_path):
    write(tmp_path / "in", "a", [shape("car ", box(0, 0, 3, 3)), shape("car", box(8, 0, 9, 3))])
    write(tmp_path / "in", "b", [shape("Traffic light", box(0, 0, 3, 3)), shape("traffic_light", box(8, 0, 9, 3))])
    result = read_annotations(tmp_path / "in")
    assert result.classes == ["background", "Traffic light", "car", "traffic_light"]
    assert any("'car '" in note for note in result.notes)
    assert any("'Traffic light' and 'traffic_light'" in note for note in result.notes)
    assert masks(tmp_path / "in", tmp_path / "out", ["_background_", "car", "Traffic light", "traffic_light"])[
        "a"
    ].any()


def test_background_in_upper_case_is_the_background(tmp_path):
    write(tmp_path / "in", "a", [shape("car", box(0, 0, 3, 3))])
    for number, labels in enumerate((["car", "Background"], ["Background", "car"])):
        result = masks(tmp_path / "in", tmp_path / f"out{number}", labels)["a"]
        assert result[0, 0] == labels.index("car") and result[10, 10] == labels.index("Background")
    write(tmp_path / "in", "a", [shape("car", box(0, 0, 3, 3)), shape("BACKGROUND", box(1, 1, 2, 2))])
    assert read_annotations(tmp_path / "in").classes == ["BACKGROUND", "car"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("car\n", r"labels\.txt: lists one class, 'car'.*_background_"),
        ("__ignore__\n\ncar\n", r"labels\.txt: lists one class, 'car'.*_background_"),
        ("_background_,car,dog\n", r"labels\.txt, line 1: found '_background_,car,dog'; expected one name per line"),
        ("_background_\n\ncar\ndog\ncar \n", r"labels\.txt, line 5: 'car' is also in line 3"),
        ("_background_\nbackground\n", r"labels\.txt, line 2: 'background' is also in line 1"),
    ],
)
@pytest.mark.parametrize("given", [False, True])
def test_labels_files_that_are_wrong_are_named_with_the_line(tmp_path, text, message, given):
    write(tmp_path / "in", "a", [shape("car", box(0, 0, 3, 3))])
    path = (tmp_path if given else tmp_path / "in") / "labels.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        convert(tmp_path / "in", tmp_path / "out", labels=path if given else None)
    assert not (tmp_path / "out").exists()


def test_images_without_a_file_and_images_within_a_file(tmp_path):
    file = io.BytesIO()
    picture = np.random.default_rng(0).integers(0, 255, (*SIZE, 3)).astype(np.uint8)
    Image.fromarray(picture).save(file, format="PNG")
    held = base64.b64encode(file.getvalue()).decode()
    write(tmp_path / "in", "train/a", [shape("x", box(0, 0, 3, 3))], imageData=held, image=False)
    write(tmp_path / "in", "val/b", [], imagePath="..\\photos\\c.png", image=False)
    write(tmp_path / "in", "old", [{"label": "x", "points": box(0, 0, 3, 3)}], imageHeight=None, imageWidth=None)
    (tmp_path / "in/photos").mkdir()
    for name in ("c", "free"):
        Image.fromarray(picture).save(tmp_path / f"in/photos/{name}.png")
    result = masks(tmp_path / "in", tmp_path / "out")
    assert result["a"][:4, :4].all() and result["a"].sum() == 16 and not result["b"].any() and result["old"].sum() == 16
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "out/images/train/a.png")), picture)
    data = read_dataset(tmp_path / "out")
    assert {item.name: item.mask is not None for item in data.train + data.val} == {
        "train/a": True, "val/b": True, "old": True, "photos/free": False,
    }  # fmt: skip


def test_two_pictures_of_one_name_are_an_error_and_none_is_lost(tmp_path):
    write(tmp_path / "in", "a", [shape("x", box(0, 0, 3, 3))], imagePath="b.png")
    write(tmp_path / "in", "b")
    (tmp_path / "in/b.json").unlink()
    with pytest.raises(DataError, match=r"a\.png and .*a\.json are both named a; rename one"):
        convert(tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_turned_photograph_is_annotated_as_it_is_seen(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    write(
        tmp_path / "in",
        "a",
        [shape("x", box(0, 0, 3, 25))],
        image=False,
        imagePath="a.jpg",
        imageHeight=30,
        imageWidth=20,
    )
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "in/a.jpg", exif=exif)
    assert masks(tmp_path / "in", tmp_path / "out")["a"].shape == (30, 20)
    data = read_dataset(tmp_path / "out")
    image, mask = Reader(3, 2, 255).read(data.train[0], True)
    assert image.shape[1:] == mask.shape == (30, 20)


@pytest.mark.parametrize(
    "text", ["../secret.png", "/etc/secret.png", "x/../../secret.png", "..\\secret.png", "../in2/a.png", "\0", " "]
)
def test_paths_that_leave_the_folder_are_refused(tmp_path, text):
    for name in ("secret.png", "in2/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(tmp_path / name)
    write(tmp_path / "in", imagePath=text)
    with pytest.raises(DataError, match=r"a\.json: imagePath: found the path"):
        read_annotations(tmp_path / "in")
    assert not (tmp_path / "out").exists()


def test_a_source_above_the_working_folder_is_no_way_out(tmp_path, monkeypatch):
    """`convert ../photos`: the images beside the annotations lie in it."""
    (tmp_path / "in").mkdir()
    (tmp_path / "here").mkdir()
    write(tmp_path / "in", shapes=[shape("cat", box(0, 0, 2, 2))])
    monkeypatch.chdir(tmp_path / "here")
    assert len(read_annotations(Path("../in")).pictures) == 1
    write(tmp_path / "in", imagePath="../secret.png")
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(tmp_path / "secret.png")
    with pytest.raises(DataError, match="leaves the data folder"):
        read_annotations(Path("../in"))


def test_images_of_any_number_of_bands_are_converted_as_they_are(tmp_path):
    bands = np.random.default_rng(0).integers(0, 60000, (*SIZE, 5)).astype(np.uint16)
    (tmp_path / "in").mkdir()
    tifffile.imwrite(tmp_path / "in/a.tif", bands, photometric="minisblack", planarconfig="contig")
    write(tmp_path / "in", shapes=[shape("cat", box(0, 0, 2, 2))], image=False, imagePath="a.tif")
    assert masks(tmp_path / "in", tmp_path / "out")["a"].shape == SIZE
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out/images/a.tif"), bands)
    damaged = (tmp_path / "in/a.tif").read_bytes()[:-40]
    (tmp_path / "in/a.tif").write_bytes(damaged)
    _, failures = write_dataset(read_annotations(tmp_path / "in"), tmp_path / "again")
    assert len(failures) == 1
    assert "a.tif: is truncated" in str(failures[0])


BAD = {
    "no shapes": {"shapes": None},
    "shape": {"shapes": [3]},
    "label": {"shapes": [shape("", box(0, 0, 1, 1))]},
    "kind": {"shapes": [shape("x", box(0, 0, 1, 1), "star")]},
    "kind of kind": {"shapes": [shape("x", box(0, 0, 1, 1), ["polygon"])]},
    "two points": {"shapes": [shape("x", [[0, 0], [1, 1]])]},
    "text point": {"shapes": [shape("x", [[0, 0], [1, "1"], [2, 2]])]},
    "infinite": {"shapes": [shape("x", [[0, 0], [1, float("inf")], [2, 2]])]},
    "not a number": {"shapes": [shape("x", [[0, 0], [1, float("nan")], [2, 2]])]},
    "huge integer": {"shapes": [shape("x", [[0, 0], [1, 10**400], [2, 2]])]},
    "mask without pixels": {"shapes": [shape("x", [[0, 0], [1, 1]], "mask")]},
    "image path": {"imagePath": 3},
    "lost image": {"imagePath": "lost.png"},
    "no image": {"imagePath": "a.json"},
    "size": {"imageHeight": -3},
    "size text": {"imageWidth": "30"},
}


@pytest.mark.parametrize("what", BAD)
def test_files_that_are_wrong_are_named_and_nothing_is_written(tmp_path, what):
    write(tmp_path / "in", "good", [shape("x", box(0, 0, 3, 3))])
    write(tmp_path / "in", "a", **BAD[what])
    with pytest.raises(DataError, match=r"a\.json"):
        convert(tmp_path / "in", tmp_path / "out", strict=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"shapes": [shape("x", box(0, 0, 1, 1), "star")]},
            r"a\.json: shapes\.0: found the shape type 'star'; expected",
        ),
        ({"imageHeight": 21}, r"a\.json: .*\(21, 30\)"),
        ({"shapes": [shape("x", [[0, 0], [1e9, 0], [0, 5]])]}, r"a\.json: shapes\.0: found the point \(1e\+09, 0\)"),
        ({"shapes": [shape("x", [[0, 0], [1, 1]], "mask", mask="AAAA")]}, r"a\.json: shapes\.0: the encoded mask"),
        (
            {"shapes": [shape("x", [[0, 0], [4, 4]], "mask", mask=encoded(np.zeros((2, 2), np.uint8)))]},
            r"a\.json: shapes\.0: the encoded mask cannot be read \(it is \(2, 2\)",
        ),
    ],
)
def test_a_picture_that_cannot_be_drawn_is_left_out_and_told(tmp_path, change, message):
    write(tmp_path / "in", "good", [shape("x", box(0, 0, 3, 3))])
    write(tmp_path / "in", "a", **{"shapes": [shape("x", box(0, 0, 1, 1))], **change})
    result = convert(tmp_path / "in", tmp_path / "out")
    assert result.written == {"images": 1, "masks": 1}
    assert len(result.failures) == 1
    with pytest.raises(DataError, match=message):
        raise result.failures[0]
    assert [path.name for path in (tmp_path / "out/images").iterdir()] == ["good.png"]
    assert [path.name for path in (tmp_path / "out/masks").iterdir()] == ["good.png"]


def test_a_damaged_image_is_told_by_its_own_name(tmp_path):
    path = write(tmp_path / "in", "a", [shape("x", box(0, 0, 3, 3))]).with_suffix(".png")
    write(tmp_path / "in", "b", [shape("x", box(0, 0, 3, 3))])
    path.write_bytes(path.read_bytes()[:50])
    result = convert(tmp_path / "in", tmp_path / "out")
    assert len(result.failures) == 1 and str(path) in str(result.failures[0])
    assert [each.name for each in (tmp_path / "out/images").iterdir()] == ["b.png"]


def test_labels_that_are_not_listed_name_the_file_and_the_nearest(tmp_path):
    write(tmp_path / "in", "a", [shape("persn", box(0, 0, 3, 3))])
    with pytest.raises(DataError, match=r"a\.json: found the label 'persn'.*mean 'person'"):
        read_annotations(tmp_path / "in", ["_background_", "person"])
    with pytest.raises(DataError, match="found 1 class names"):
        read_annotations(tmp_path / "in", ["__ignore__", "persn"])
    with pytest.raises(DataError, match="persn more than once"):
        read_annotations(tmp_path / "in", ["persn", "persn"])


def test_labels_txt_in_the_source_is_used_and_said(tmp_path):
    write(tmp_path / "in", "a", [shape("b", box(0, 0, 3, 3))])
    (tmp_path / "in/labels.txt").write_text("__ignore__\n_background_\nc\nb\n")
    result = convert(tmp_path / "in", tmp_path / "out")
    assert result.classes == ["background", "c", "b"]
    assert any("labels.txt" in sentence for sentence in result.notes)
    assert np.array(Image.open(tmp_path / "out/masks/a.png")).max() == 2
    (tmp_path / "other.txt").write_text("_background_\nb\n")
    assert convert(tmp_path / "in", tmp_path / "out2", labels=tmp_path / "other.txt").classes == ["background", "b"]


def test_nothing_is_overwritten(tmp_path):
    write(tmp_path / "in", "a", [shape("x", box(0, 0, 3, 3))])
    (tmp_path / "out").mkdir()
    convert(tmp_path / "in", tmp_path / "out")
    (tmp_path / "out/masks/a.png").write_text("mine")
    with pytest.raises(DataError, match="out: is not empty"):
        convert(tmp_path / "in", tmp_path / "out")
    assert (tmp_path / "out/masks/a.png").read_text() == "mine"
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="file: is a file"):
        convert(tmp_path / "in", tmp_path / "file")


@pytest.mark.parametrize("seed", range(4))
def test_damaged_files_are_read_or_named(tmp_path, seed):
    """400 files in all with flipped, cut or foreign bytes: each is drawn or told by its name."""
    pixels = encoded(np.ones((2, 2), np.uint8))
    shapes = [
        shape("x", box(2, 2, 9, 9)),
        shape("x", [[4, 4], [9, 9]], "circle"),
        shape("x", [[0, 0], [1, 1]], "mask", mask=pixels),
    ]
    draw = random.Random(seed)
    path = write(tmp_path / "in", "a", shapes)
    whole = path.read_bytes()
    told = 0
    for number in range(100):
        data = bytearray(whole)
        if number % 10 == 0:
            data = data[: draw.randrange(len(data))]
        for _ in range(draw.randrange(1, 4)):
            if data:
                data[draw.randrange(len(data))] = draw.choice([draw.randrange(256), *b'0159-e.,:[]{}"'])
        path.write_bytes(bytes(data))
        try:
            result = convert(tmp_path / "in", tmp_path / f"out{number}")
            problems = [str(failure) for failure in result.failures]
        except DataError as error:
            problems = [str(error)]
        told += bool(problems)
        assert all("a.json" in text or "in" in text for text in problems)
    assert told > 30


def test_labels_are_lines(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_bytes("\ufeffa\r\n\r\n b c \n".encode())
    assert read_lines(path) == ["a", "b c"]
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"labels\.txt: cannot be read as text"):
        read_lines(path)
    with pytest.raises(DataError, match=r"nowhere\.txt"):
        read_lines(Path(tmp_path / "nowhere.txt"))


@pytest.mark.parametrize("mode", ["P", "LA", "RGBA"])
def test_a_mask_shape_that_may_be_meant_by_its_index_or_opacity_is_no_grey_image(tmp_path, mode):
    data = io.BytesIO()
    Image.new(mode, (3, 2)).save(data, "PNG")
    mask = base64.b64encode(data.getvalue()).decode()
    write(tmp_path / "in", shapes=[shape("car", [[1, 1], [3, 2]], "mask", mask=mask)])
    _, failures = write_dataset(read_annotations(tmp_path / "in"), tmp_path / "out")
    assert len(failures) == 1 and f"are {mode}; expected grey" in str(failures[0])


def test_labels_in_two_unicode_forms_are_one_class(tmp_path):
    for name, label in (("a", "caf\u00e9"), ("b", "cafe\u0301")):
        write(tmp_path / "in", name, shapes=[shape(label, box(1, 1, 3, 3))])
    assert read_annotations(tmp_path / "in").classes == ["background", "caf\u00e9"]


def test_two_files_of_one_image_are_an_error_that_names_both(tmp_path):
    write(tmp_path, "a", [shape("cat", box(2, 2, 9, 9))])
    write(tmp_path, "a_second", [shape("dog", box(12, 2, 19, 9))], image=False, imagePath="a.png")
    with pytest.raises(DataError, match=r"a\.png: is annotated twice, in .*a\.json and .*a_second\.json"):
        write_dataset(read_annotations(tmp_path), tmp_path / "out")
    assert not (tmp_path / "out").exists()
