import json

import numpy as np
from PIL import Image
from typer.testing import CliRunner

from fuzzyseg.cli import app
from fuzzyseg.data import read_dataset


def source(root, names=("a", "b"), label="car"):
    root.mkdir()
    for name in names:
        Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(root / f"{name}.png")
        shape = {"label": label, "points": [[2, 2], [9, 2], [9, 9]], "shape_type": "polygon"}
        (root / f"{name}.json").write_text(json.dumps({"shapes": [shape], "imagePath": f"{name}.png"}))
    return root


def run(*words):
    return CliRunner().invoke(app, ["convert", *map(str, words)])


def test_a_folder_is_converted_and_what_was_done_is_said(tmp_path):
    (tmp_path / "labels.txt").write_text("__ignore__\n_background_\ntree\ncar\n")
    result = run(source(tmp_path / "in"), "--out", tmp_path / "out", "--labels", tmp_path / "labels.txt")
    assert result.exit_code == 0
    assert result.stderr == ""
    assert "2 LabelMe files with 2 shapes" in result.stdout
    assert "3 classes: background, tree, car" in result.stdout
    assert f"2 images and 2 masks written to {tmp_path / 'out'}" in result.stdout
    assert read_dataset(tmp_path / "out").classes == ["background", "tree", "car"]


def test_exit_codes_tell_refused_from_failed(tmp_path):
    folder = source(tmp_path / "in")
    (folder / "a.png").write_bytes((folder / "a.png").read_bytes()[:60])
    result = run(folder, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "1 images and 1 masks written" in result.stdout and "a.png" in result.stderr
    again = run(folder, "--out", tmp_path / "out")
    assert again.exit_code == 2
    assert "is not empty" in again.stderr and "--out" in again.stderr
    lost = run(tmp_path / "nowhere", "--out", tmp_path / "out2")
    assert lost.exit_code == 2
    assert "nowhere: does not exist" in lost.stderr and "Traceback" not in lost.stderr
    labels = run(folder, "--out", tmp_path / "out2", "--labels", tmp_path / "none.txt")
    assert labels.exit_code == 2 and "none.txt: cannot be read" in labels.stderr
