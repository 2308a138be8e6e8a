"""The contact sheet: what is in it, in which colour, and where it is not written."""

from contextlib import nullcontext

import numpy as np
import pytest
from PIL import Image

from fuzzyseg.config import validate
from fuzzyseg.data import DataError
from fuzzyseg.data.check import sheet as module
from fuzzyseg.data.check.sheet import GAP, TILE, check_sheet
from fuzzyseg.data.sample import Item
from fuzzyseg.experiment.check_data import check
from support.tiny_data import write_folder


def sheet_of(root, path):
    check(validate({"data": {"root": str(root)}}), workers=1, sheet=path)
    return np.array(Image.open(path).convert("RGB"))


@pytest.fixture
def folder(tmp_path):
    root = write_folder(tmp_path / "data", size=(48, 64))
    (root / "dataset.yaml").write_text(
        "classes: [low, middle, high]\ncolours: [[0, 0, 0], [250, 10, 20], [20, 240, 30]]\nignore_index: 255\n"
    )
    return root


def test_each_class_has_a_square_of_its_colour_and_an_example_of_its_pixels(folder, tmp_path):
    """The images of `write_folder` have (80 m, 255 - 60 m) in red and green where the mask is m."""
    pixels = sheet_of(folder, tmp_path / "sheet.png")
    width, height = 2 * TILE + 3 * GAP, pixels.shape[0] // 2
    assert pixels.shape[1] == 2 * width  # three classes and void
    for label, colour in enumerate(([0, 0, 0], [250, 10, 20], [20, 240, 30])):
        cell = pixels[label // 2 * height :, label % 2 * width :][:height, :width]
        assert cell[GAP + 8, GAP + 8].tolist() == colour
        example = cell[-GAP - TILE : -GAP, GAP + TILE + GAP : -GAP].astype(int)
        clear = np.abs(example[..., :2] - [80 * label, 255 - 60 * label]).max(-1) < 12
        other = np.abs(example[..., :2] - [80 * ((label + 1) % 3), 255 - 60 * ((label + 1) % 3)]).max(-1) < 12
        assert clear.mean() > 0.1
        assert other.mean() < 0.02


def test_texts_stay_in_their_cells(folder, tmp_path, monkeypatch):
    names = ["a" * 200, "m " * 90, "line\nbreak"]
    (folder / "dataset.yaml").write_text(f"classes: {names}\nignore_index: 255\n")
    written = []
    draw = module._write

    def write(pen, place, text, room, size):
        written.append((place, room))
        draw(pen, place, text, room, size)

    monkeypatch.setattr(module, "_write", write)
    pixels = sheet_of(folder, tmp_path / "sheet.png")
    assert all(x + room <= 2 * TILE + 2 * GAP for (x, _), room in written)
    assert (pixels[:, 2 * TILE + 2 * GAP : 2 * TILE + 3 * GAP] == 255).all()


def test_images_of_other_numbers_and_images_that_are_too_large(folder, tmp_path):
    for number, path in enumerate(sorted((folder / "images").rglob("*.png"))):
        values = np.random.default_rng(number).integers(0, 4000, (48, 64)).astype(np.uint16)
        Image.fromarray(values).save(path)
    grey = sheet_of(folder, tmp_path / "grey.png")
    assert np.ptp(grey[-GAP - TILE : -GAP, GAP : GAP + TILE]) > 200  # stretched, not black


def test_the_sheet_is_refused_before_the_work(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("fuzzyseg.experiment.check_files.Examiner.inspect", lambda *_: pytest.fail("worked already"))
    (tmp_path / "file").write_text("")
    for path in (folder / "images" / "train" / "s.png", tmp_path / "s.txt", tmp_path / "file" / "s.png"):
        with pytest.raises(DataError, match=path.name if path.suffix == ".txt" else str(path.parent)):
            check(validate({"data": {"root": str(folder)}}), workers=1, sheet=path)
    assert not (folder / "images" / "train" / "s.png").exists()


@pytest.mark.parametrize(("place", "taken"), [("images", True), ("images/train", True), (".", False), ("..", False)])
def test_a_sheet_above_split_folders_would_be_an_image_too(tmp_path, place, taken):
    root = tmp_path / "data"
    for kind in ("images", "masks"):
        (root / kind / "train").mkdir(parents=True)
    items = [Item(root / "images/train/a.png", root / "masks/train/a.png", "train/a")]
    with pytest.raises(DataError, match="read as an image") if taken else nullcontext():
        check_sheet(root / place / "sheet.png", items)
