"""The examples of `fuzzyseg train --help`, taken from the help text and run on generated data."""

import shlex

import pytest
from typer.testing import CliRunner

from fuzzyseg.cli import app
from fuzzyseg.data.datasets.synthetic import write_demo

TINY = shlex.split("--encoder resnet18 --weights none --batch 2 --crop 64 --steps 2 --workers 0 --device cpu")
"""Appended to each example: the last of two equal options counts, and no weights are downloaded."""


def examples():
    shown = CliRunner().invoke(app, ["train", "--help"]).stdout
    lines = shown.split("Examples:")[1].split("\n\n")[0].splitlines()
    return [shlex.split(line)[1:] for line in lines if line.strip()]


def test_there_are_three_examples_on_a_line_each():
    found = examples()
    assert len(found) == 3
    assert all(words[0] == "train" and "--out" in words for words in found)


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """`photos/` in the working folder: 20 images, of which 16 have masks."""
    write_demo(tmp_path / "photos", train=20, val=2, size=(64, 64))
    masks = sorted((tmp_path / "photos").glob("**/masks/**/*.png"))
    for mask in [path for path in masks if "train" in path.parts][:4]:
        mask.unlink()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("number", range(3))
def test_an_example_runs(photos, number):
    words = examples()[number]
    result = CliRunner().invoke(app, [*words, *TINY])
    assert result.exit_code == 0, result.output
    run = photos / words[words.index("--out") + 1]
    assert (run / "result.json").is_file()
    assert list((run / "model").glob("*.safetensors"))
