"""`fuzzyseg predict`: what is asked for, and how many images came out."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

import fuzzyseg.experiment
from fuzzyseg.cli import app


@pytest.fixture
def predict(monkeypatch):
    asked = {}
    answer = {
        "written": [Path("out/masks/a.png"), Path("out/overlays/a.png"), Path("out/class_shares.csv")],
        "failures": [],
    }

    def carry_out(source, images, out, **options):
        if (progress := options.pop("progress")) is not None:
            progress(1, 2)
        asked.update(options, source=source, images=images, out=out)
        return answer["written"], answer["failures"]

    monkeypatch.setattr(fuzzyseg.experiment, "predict", carry_out)

    def call(*words):
        return CliRunner().invoke(app, ["predict", *words]), asked

    call.answer = answer
    return call


def test_defaults(predict):
    result, asked = predict("run", "images", "--out", "out")
    assert result.exit_code == 0, result.stderr
    assert asked == {
        "source": "run",
        "images": [Path("images")],
        "out": Path("out"),
        "write": ["mask", "overlay"],
        "encoded": False,
        "flip": False,
        "overwrite": False,
        "device": "auto",
    }
    assert result.stdout == "1 image predicted; results are in out\n"


def test_every_option_is_handed_on(predict):
    words = [
        "--encoded",
        "--max-megapixels",
        "400",
        "--write",
        "probabilities, cvat",
        "--scales",
        "0.5,1",
        "--flip",
        "--overwrite",
        "--tile",
        "512x640",
        "--device",
        "cpu",
        "--ray",
        "3",
    ]
    asked = predict("run", "images", "more/*.png", "--out", "out", *words)[1]
    assert asked["images"] == [Path("images"), Path("more/*.png")]
    assert (asked["write"], asked["tile"]) == (["probabilities", "cvat"], (512, 640))
    assert (asked["scales"], asked["flip"], asked["overwrite"]) == ([0.5, 1.0], True, True)
    assert (asked["device"], asked["encoded"], asked["max_megapixels"], asked["ray"]) == ("cpu", True, 400, 3)


@pytest.mark.parametrize("name", ["tile", "scales"])
def test_what_is_no_size_or_number_is_refused(predict, name):
    result, asked = predict("run", "images", "--out", "out", f"--{name}", "big")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: --{name}: found 'big'")
    assert not asked


def test_of_several_processes_the_first_reports(predict, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, text in (("0", "1 image predicted; results are in out\n"), ("1", "")):
        monkeypatch.setenv("RANK", rank)
        result, asked = predict("run", "images", "--out", "out")
        assert (result.exit_code, result.stdout) == (0, text)
        assert asked["out"] == Path("out")


def test_images_that_fail_are_named_and_exit_1(predict):
    predict.answer["failures"] = ["images/x.png: is no image"]
    result, _ = predict("run", "images", "--out", "out")
    assert result.exit_code == 1
    assert result.stderr == "error: images/x.png: is no image\n"
    assert result.stdout == "1 image predicted, 1 failed; results are in out\n"


def test_names_of_files_send_no_codes_to_the_terminal(predict):
    predict.answer["failures"] = ["images/\x1b[2J\udcff.png: is no image"]
    result, _ = predict("run", "images", "--out", "out")
    assert "\x1b" not in result.stderr
    assert r"images/\u001b[2J\udcff.png: is no image" in result.stderr
