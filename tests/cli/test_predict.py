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
        options.pop("progress")(1, 2)
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
        "images": Path("images"),
        "out": Path("out"),
        "overlay": True,
        "probabilities": False,
        "encoded": False,
        "tile": None,
        "device": "auto",
    }
    assert result.stdout == "1 image predicted; results are in out\n"


def test_every_option_is_handed_on(predict):
    words = [
        "--encoded",
        "--max-megapixels",
        "400",
        "--no-overlay",
        "--probabilities",
        "--tile",
        "512x640",
        "--device",
        "cpu",
    ]
    asked = predict("run", "images", "--out", "out", *words)[1]
    assert (asked["overlay"], asked["probabilities"], asked["tile"]) == (False, True, (512, 640))
    assert (asked["device"], asked["encoded"], asked["max_megapixels"]) == ("cpu", True, 400)


def test_a_tile_that_is_no_size_is_refused(predict):
    result, asked = predict("run", "images", "--out", "out", "--tile", "big")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: --tile: found 'big'")
    assert not asked


def test_replaced_results_are_counted(predict, tmp_path):
    for kind in ("masks", "overlays"):
        (tmp_path / kind / "day").mkdir(parents=True)
        for name in ("a", "day/b", "other"):
            (tmp_path / kind / f"{name}.png").touch()
    names = ("masks/a.png", "overlays/a.png", "masks/day/b.png", "masks/c.png", "class_shares.csv")
    predict.answer["written"] = [tmp_path / name for name in names]
    result, _ = predict("run", "images", "--out", str(tmp_path))
    assert result.stdout.startswith("3 images predicted, 2 of them again")


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
