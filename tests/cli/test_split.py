import errno
import json
import os

import pytest
from typer.testing import CliRunner

from fuzzyseg.cli import app
from fuzzyseg.config import validate
from support.tiny_data import material_of, settings, write_folder


def call(*words):
    return CliRunner().invoke(app, ["split", *map(str, words)])


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "data")


def test_the_lists_give_back_the_split_that_a_run_makes(folder, tmp_path):
    result = call(folder, "--labelled", 5, "--seed", 3, "--out", tmp_path / "split")
    assert result.exit_code == 0, result.stderr
    made = json.loads((tmp_path / "split" / "split.json").read_text())
    assert made["hash"] in result.stdout
    own = material_of(validate(settings(folder, tmp_path / "x", data={"labelled": "5"}))).split
    assert own.hash == made["hash"]
    lists = {"labelled": str(tmp_path / "split" / "labelled.txt"), "val": str(tmp_path / "split" / "val.txt")}
    read = material_of(validate(settings(folder, tmp_path / "x", data=lists))).split
    assert read.hash == made["hash"]
    assert [item.name for item in read.labelled] == made["labelled"]


def test_again_is_the_same_and_another_split_is_not_written_over_it(folder, tmp_path):
    out = tmp_path / "split"
    assert call(folder, "--labelled", 5, "--out", out).exit_code == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert call(folder, "--labelled", 5, "--out", out).exit_code == 0
    other = call(folder, "--labelled", 6, "--out", out)
    assert other.exit_code == 2
    assert "contains another split" in other.stderr
    assert before == {path.name: path.read_bytes() for path in out.iterdir()}


@pytest.mark.parametrize("complete", range(4))
def test_a_full_disk_leaves_nothing_of_a_split(folder, tmp_path, monkeypatch, complete):
    real, written = os.replace, []

    def full(source, target):
        if len(written) == complete:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(target)
        real(source, target)

    monkeypatch.setattr(os, "replace", full)
    before = sorted(tmp_path.iterdir())
    result = call(folder, "--labelled", 5, "--out", tmp_path / "new" / "split")
    assert result.exit_code == 1
    name = ("split.json", "labelled.txt", "unlabelled.txt", "val.txt")[complete]
    assert f"split/{name}: cannot be written (No space left on device)" in result.stderr
    assert result.stderr.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_a_full_disk_keeps_what_was_in_the_folder_of_a_split(folder, tmp_path, monkeypatch):
    out = tmp_path / "split"
    assert call(folder, "--labelled", 5, "--out", out).exit_code == 0
    (out / "val.txt").unlink()
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def full(source, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert call(folder, "--labelled", 5, "--out", out).exit_code == 1
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_groups_and_what_cannot_be(folder, tmp_path):
    grouped = call(folder, "--val", "none", "--labelled", 3, "--group", r"im(\d)", "--out", tmp_path / "a")
    assert grouped.exit_code == 0, grouped.stderr
    names = json.loads((tmp_path / "a" / "split.json").read_text())["labelled"]
    assert len(names) in (2, 10, 12)  # whole tens of the names
    wrong = call(folder, "--labelled", 99, "--out", tmp_path / "b")
    assert wrong.exit_code == 2
    assert "--labelled: found 99 of 12 training images with masks; expected a count from 1 to 12" in wrong.stderr
    assert not (tmp_path / "b").exists()


def test_names_that_are_no_utf8_or_no_words_are_listed_and_read_back(folder, tmp_path):
    for old, new in (("im01", b"# im\xff "), ("im02", b"a #b\nc"), ("im03", b"\x85 x ")):
        for kind in ("images", "masks"):
            place = folder / kind / "train"
            os.rename(place / f"{old}.png", os.fsencode(place) + b"/" + new + b".png")
    for _ in range(2):  # again is the same
        result = call(folder, "--labelled", 12, "--val", "val", "--out", tmp_path / "split")
        assert result.exit_code == 0, result.output
    made = json.loads((tmp_path / "split" / "split.json").read_text())
    lists = {"labelled": str(tmp_path / "split" / "labelled.txt"), "val": str(tmp_path / "split" / "val.txt")}
    read = material_of(validate(settings(folder, tmp_path / "x", data=lists))).split
    assert [item.name for item in read.labelled] == made["labelled"]
    assert "train/# im\udcff " in made["labelled"]
