"""Lines around objects, and values in all masks: index, palette and colour masks drawn alike."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from fuzzyseg.config import validate
from fuzzyseg.data.check.findings import note_undeclared_void
from fuzzyseg.data.check.labels import NO_CLASS, likely_void, mask_statistics
from fuzzyseg.data.datasets.read import read_dataset
from fuzzyseg.data.sample import Item
from fuzzyseg.experiment.check_data import check

COLOURS = np.array([[0, 0, 0], [40, 90, 30], [200, 60, 60], [90, 90, 220], [150, 20, 90], [224, 224, 192]], np.uint8)
FIELD, LINE = 1, 0


def drawn(seed, width=3):
    """A field (1) with objects of 2 and 3, each with a line of 0 around it."""
    rng = np.random.default_rng(seed)
    picture = Image.new("L", (96, 80), FIELD)
    pen = ImageDraw.Draw(picture)
    for column, label in enumerate((2, 3)):
        x, y = 6 + 46 * column + rng.integers(0, 6), 8 + rng.integers(0, 16)
        pen.ellipse((x, y, x + 34, y + 44), fill=label, outline=LINE, width=width)
    return np.array(picture)


def write(root, kind, masks, text=""):
    for number, mask in enumerate(masks):
        for name in ("images", "masks"):
            (root / name).mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number + 50).integers(0, 255, (*mask.shape, 3)).astype(np.uint8)
        Image.fromarray(noise).save(root / "images" / f"{number}.png")
        saved = Image.fromarray(COLOURS[mask] if kind == "colour" else mask)
        if kind == "palette":
            saved.putpalette(COLOURS.ravel().tolist())
        saved.save(root / "masks" / f"{number}.png")
    if text:
        (root / "dataset.yaml").write_text(text)
    return root


def findings_of(root):
    report = check(validate({"data": {"root": str(root), "val": "none"}}), workers=1)
    return {finding.kind: finding for finding in report.findings}


@pytest.mark.parametrize("kind", ["index", "palette", "colour"])
@pytest.mark.parametrize("width", [1, 4])
def test_a_class_that_outlines_the_objects_is_asked_about(tmp_path, kind, width):
    root = write(tmp_path, kind, [drawn(seed, width) for seed in range(4)])
    finding = findings_of(root)["outline"]
    assert [detail["index"] for detail in finding.details] == [0]
    name = finding.details[0]["class"]
    (root / "dataset.yaml").write_text(f"ignore: [{name}]\n")  # as its advice says
    assert f"ignore: [{name}]" in finding.advice
    again = findings_of(root)
    assert "outline" not in again
    assert "all_void" not in again


@pytest.mark.parametrize("kind", ["index", "palette", "colour"])
def test_neither_a_background_nor_thin_objects_are_outlines(tmp_path, kind):
    without = [np.where(drawn(seed) == LINE, FIELD, drawn(seed)) for seed in range(4)]
    cracks = [mask.copy() for mask in without]
    for mask in cracks:
        mask[mask == 3] = FIELD
        mask[:, 60:63] = 3  # a crack, beside nothing but the field
    for place, masks in (("background", without), ("cracks", cracks)):
        lowered = [mask - 1 for mask in masks]
        assert "outline" not in findings_of(write(tmp_path / place, kind, lowered))


def test_a_line_in_some_masks_only_is_no_outline(tmp_path):
    masks = [drawn(0), np.where(drawn(1) == LINE, FIELD, drawn(1))]
    assert "outline" not in findings_of(write(tmp_path, "index", masks))


def test_a_colour_of_all_masks_is_one_line_without_snap(tmp_path):
    names = "colours: {field: [40, 90, 30], tree: [200, 60, 60], house: [90, 90, 220]}\n"
    masks = [drawn(seed) for seed in range(4)]
    result = findings_of(write(tmp_path, "colour", masks, names))
    finding = result["common_values"]
    assert [detail["value"] for detail in finding.details] == [(0, 0, 0)]
    assert "thin line" in finding.details[0]["text"]
    assert "snap" not in finding.advice
    assert "values" not in result
    odd = np.array(Image.open(tmp_path / "masks" / "1.png"))
    odd[50, 50] = 201, 62, 60
    Image.fromarray(odd).save(tmp_path / "masks" / "1.png")
    result = findings_of(tmp_path)
    assert len(result["common_values"].details) == len(result["values"].details) == 1
    assert "snap" in result["values"].advice


def test_a_value_of_all_index_masks_is_one_line(tmp_path):
    masks = [np.where(drawn(seed) == LINE, 9, drawn(seed) - 1).astype(np.uint8) for seed in range(3)]
    finding = findings_of(write(tmp_path, "index", masks, "classes: [field, tree, house]\n"))["common_values"]
    assert [detail["value"] for detail in finding.details] == [9]
    assert "thin line" in finding.details[0]["text"]


def test_traces_of_compression_in_all_masks_are_left_to_snap(tmp_path):
    names = "colours: {line: [0, 0, 0], field: [40, 90, 30], tree: [200, 60, 60], house: [90, 90, 220]}\n"
    root = write(tmp_path, "colour", [drawn(seed) for seed in range(3)], names)
    for path in (root / "masks").iterdir():
        pixels = np.array(Image.open(path))
        pixels[3, 3:9] = 41, 92, 30
        Image.fromarray(pixels).save(path)
    result = findings_of(root)
    assert "common_values" not in result
    assert "snap" in result["values"].advice


def test_the_counts_of_one_mask(tmp_path):
    mask = np.full((20, 30), 1, np.uint8)
    mask[:, 10:12], mask[:, 12:], mask[0, 0] = 7, 0, 255
    Image.fromarray(mask).save(tmp_path / "m.png")
    result = mask_statistics(Item(tmp_path / "a.png", tmp_path / "m.png", "a"), 2, 255)
    assert result.changes == {(1, NO_CLASS): 20, (0, NO_CLASS): 20, (1, 255): 2}
    literal = dict.fromkeys((0, 1), 0)
    for y in range(3, 17):
        for x in range(3, 27):
            square = mask[y - 3 : y + 4, x - 3 : x + 4]
            if (square == square[0, 0]).all():
                literal[int(mask[y, x])] += 1
    # edges lie at the pixel before a change, so that a square that ends there counts as one with another label
    assert all(0 <= literal[label] - result.inner[label] <= 14 for label in literal)
    assert likely_void([result]) == [NO_CLASS]


def areas(seed, gap):
    """Strips of five classes, 1 to 5; `gap` in some places between them, as a thing, and as specks."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:96, :130]
    mask = (rng.permutation(5)[(x + 6 * np.sin(y / 9 + seed)).clip(0, 129).astype(int) // 26] + 1).astype(np.uint8)
    border = np.zeros(mask.shape, bool)
    border[:, 1:] |= mask[:, 1:] != mask[:, :-1]
    if gap:
        mask[(border & (rng.random(mask.shape) < 0.4)) | (rng.random(mask.shape) < 0.001)] = gap
        mask[40:58, 50:76] = gap
    return mask


def pieces(kind):
    """Masks whose void is the last value or colour, or the first, which is listed before the classes."""
    masks = [areas(seed, 6) for seed in range(6)]
    return [mask % 6 if kind == "first" else mask - 1 for mask in masks]


@pytest.mark.parametrize(
    ("kind", "place", "index", "declared"),
    [
        ("index", "last", 5, "ignore_index: 5"),
        ("index", "last", 5, "ignore: [class_5]"),
        ("index", "first", 0, "ignore: [class_0]"),
        ("palette", "last", 5, "ignore_index: 5"),
        ("colour", "last", 5, "ignore: [colour_224_224_192]"),
        ("colour", "first", 0, "ignore: [colour_0_0_0]"),
    ],
)
def test_pieces_between_all_classes_are_asked_about(tmp_path, kind, place, index, declared):
    root = write(tmp_path, kind, pieces(place))
    finding = findings_of(root)["outline"]
    assert [detail["index"] for detail in finding.details] == [index]
    assert declared.replace("ignore_index: ", "data.ignore_index=") in finding.advice
    dataset = read_dataset(root)
    assert [note for note in note_undeclared_void(dataset, dataset.train) if finding.details[0]["text"] in note]
    (root / "dataset.yaml").write_text(f"{declared}\n")
    assert "outline" not in findings_of(root)
    dataset = read_dataset(root)
    assert len(dataset.classes) == 5
    assert note_undeclared_void(dataset, dataset.train) == []


def test_areas_of_classes_are_not_void(tmp_path):
    assert "outline" not in findings_of(write(tmp_path / "areas", "index", [areas(seed, 0) - 1 for seed in range(6)]))
    rng = np.random.default_rng(0)  # fields of which each kind is beside every other
    fields = [np.kron(rng.integers(0, 4, (8, 10)), np.ones((12, 12))).astype(np.uint8) for _ in range(6)]
    assert "outline" not in findings_of(write(tmp_path / "fields", "index", fields))
    named = write(tmp_path / "named", "index", pieces("last"), "classes: [a, b, c, d, e, f]\n")
    assert "outline" not in findings_of(named)
    declared = [np.where(mask == 5, 255, mask) for mask in pieces("last")]
    assert "outline" not in findings_of(write(tmp_path / "declared", "index", declared))


def test_a_ring_within_a_ring_is_not_void(tmp_path):
    masks = []
    for seed in range(4):
        picture, shift = Image.new("L", (128, 96), 0), 4 * seed
        pen = ImageDraw.Draw(picture)
        for label in range(1, 3):
            pen.ellipse((20 + shift + 12 * label, 10 + 8 * label, 90 + shift - 12 * label, 80 - 8 * label), fill=label)
        masks.append(np.array(picture))
    assert "outline" not in findings_of(write(tmp_path, "index", masks))


def test_a_class_named_as_void_is_told_of(tmp_path):
    root = write(tmp_path, "index", [drawn(seed) for seed in range(2)], "classes: [Unlabelled, field, tree, house]\n")
    assert [note for note in read_dataset(root).notes if "`ignore: [Unlabelled]`" in note]
    (root / "dataset.yaml").write_text("classes: [Unlabelled, field, tree, house]\nignore: [Unlabelled]\n")
    assert not [note for note in read_dataset(root).notes if note.startswith("warning")]
