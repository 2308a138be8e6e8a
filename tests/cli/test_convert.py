import errno
import importlib
import json
import os

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


def test_a_folder_that_is_taken_is_refused_before_the_annotations_are_read(tmp_path, monkeypatch):
    module = importlib.import_module("fuzzyseg.experiment.convert")
    monkeypatch.setattr(module, "read_annotations", lambda *_, **__: 1 / 0)
    (tmp_path / "taken").write_text("")
    for out in (tmp_path / "taken", tmp_path / "taken" / "below", source(tmp_path / "in")):
        result = run(tmp_path / "in", "--out", out)
        assert result.exit_code == 2
        assert str(out) in result.stderr


def test_a_full_disk_leaves_no_cut_file_and_says_so(tmp_path, monkeypatch):
    real = os.replace

    def replace(part, path):
        if path.name == "b.png" and path.parent.name == "masks":
            raise OSError(errno.ENOSPC, "No space left on device")
        real(part, path)

    folder = source(tmp_path / "in", names=("a", "b", "c"))
    monkeypatch.setattr(os, "replace", replace)
    result = run(folder, "--out", tmp_path / "out")
    assert result.exit_code != 0
    assert "No space left on device" in result.stderr
    assert "dataset.yaml is missing" in result.stderr
    left = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert set(left) <= {"images/a.png", "images/c.png", "masks/a.png", "masks/c.png"}  # those that were written
    assert len(left) >= 2
    assert all((tmp_path / "out" / name).read_bytes() for name in left)
