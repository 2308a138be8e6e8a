"""docs/tutorial-own-data.md, carried out: its commands and its dataset.yaml, on CamVid painted in RGBA colours."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from fuzzyseg.cli import app
from fuzzyseg.data import read_dataset
from fuzzyseg.data.labels.decode import training_labels

TEXT = (Path(__file__).parents[2] / "docs" / "tutorial-own-data.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(yaml|sh)\n(.*?)```", TEXT, re.DOTALL)
SMALL = {
    "train": "--steps 2 --crop 64 --batch 2 --workers 0 --device cpu --arch FPN --encoder mobilenet_v2 --weights none",
    "split": "--labelled 8",
}
"""Appended to a command: the last of two equal options counts."""


def paint(camvid, folder, colours):
    """40 photos, 25 of them with a mask: the colours of the classes, void transparent."""
    photos = sorted((camvid / "train").glob("*.jpg"))[::9][:40]
    assert len(photos) == 40
    table = np.zeros((256, 4), np.uint8)
    table[: len(colours), :3] = colours
    table[: len(colours), 3] = 255
    for name in ("photos", "colours"):
        (folder / "street" / name).mkdir(parents=True)
    for number, photo in enumerate(photos):
        shutil.copy(photo, folder / "street" / "photos")
        if number % 8 < 5:
            mask = np.array(Image.open(camvid / "trainannot" / f"{photo.stem}.png"))
            Image.fromarray(table[mask]).save(folder / "street" / "colours" / f"{photo.stem}.png")
    (folder / "new_photos").mkdir()
    for photo in sorted((camvid / "val").glob("*.jpg"))[:2]:
        shutil.copy(photo, folder / "new_photos")


@pytest.mark.slow
def test_the_tutorial_is_what_happens(shared, tmp_path, monkeypatch):
    camvid = shared / "data" / "camvid"
    if not camvid.is_dir():
        pytest.skip("needs CamVid among the shared data")
    described = [yaml.safe_load(block) for kind, block in BLOCKS if kind == "yaml"]
    colours = list(described[-1]["colours"].values())
    paint(camvid, tmp_path, colours)
    monkeypatch.chdir(tmp_path)
    said = []
    for kind, block in BLOCKS:
        if kind == "yaml":
            Path("street/dataset.yaml").write_text(block)
            continue
        for line in block.splitlines():
            words = shlex.split(line)
            assert words[0] == "fuzzyseg"
            words += shlex.split(SMALL.get(words[1], ""))
            result = CliRunner().invoke(app, words[1:])
            assert result.exit_code == (0 if said else 2), result.output
            said.append((words[1], result.output))
    verbs, outputs = zip(*said, strict=True)
    assert verbs == ("check", "check", "check", "split", "check", "train", "evaluate", "predict")
    assert "no dataset is recognised" in outputs[0]
    assert "dataset.yaml (images: ..., masks: ...)" in outputs[0]
    assert "colour-coded, 11 colours, found in the files" in outputs[1]
    assert "colour_128_64_128" in outputs[1]
    for output in (outputs[2], outputs[4], outputs[5]):
        assert "colour-coded, 11 colours, from dataset.yaml" in output
    assert re.search(r"unlabelled +27 +0\n", outputs[4])  # 40 less 8 labelled and a fifth of 25
    assert "error" not in outputs[4]
    assert 0 <= json.loads(Path("runs/first/result.json").read_text())["last"]["miou"] <= 1
    dataset = read_dataset("street")
    assert dataset.classes == list(described[-1]["colours"])
    masks = [item for item in dataset.train if item.mask is not None]
    assert len(masks) == 25
    for item in masks:  # what is learnt from is what CamVid's own files hold
        own = np.array(Image.open(camvid / "trainannot" / f"{item.image.stem}.png"))
        labels = training_labels(item, classes=11, ignore_index=dataset.ignore_index)
        assert np.array_equal(labels, np.where(own == 11, 255, own))
    predicted = list(Path("results/masks").rglob("*.png"))
    assert len(predicted) == 2
    for path in predicted:
        assert {tuple(colour) for colour in np.array(Image.open(path)).reshape(-1, 3).tolist()} <= {
            *map(tuple, colours)
        }
