"""`fuzzyseg export`: the files it writes, its message and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import fuzzyseg.experiment
from fuzzyseg.cli import app
from fuzzyseg.inference import load, save_model
from fuzzyseg.inference.export import Agreement, formats
from fuzzyseg.networks import build_network
from support.small_images import card, noise, write


@pytest.fixture
def run(tmp_path):
    torch.manual_seed(0)
    network = build_network("FPN", "mobilenet_v2", weights="none", channels=3, classes=3)
    save_model(tmp_path / "run" / "model", network, card=card(arch="FPN", encoder="mobilenet_v2"))
    return tmp_path / "run"


def call(*words: object):
    return CliRunner().invoke(app, ["export", *map(str, words)])


@pytest.fixture
def images(tmp_path):
    for number in range(3):
        write(tmp_path / "photos" / "images" / f"im{number}.png", noise(64, 96, number))
    return tmp_path / "photos"


@pytest.fixture
def asked(monkeypatch):
    found = {}

    def carry_out(source, **options):
        found.update(options, source=source)
        return Path("out"), Agreement(2, [(64, 96)], 12288, 1.0, 1e-5, "im0", 0.0)

    monkeypatch.setattr(fuzzyseg.experiment, "export", carry_out)
    return found


def test_a_model_is_exported_beside_it_and_the_agreement_is_printed(run, images):
    result = call(run, "--format", "pt2", "--data", images, "--images", 2, "--static", "64x96")
    assert result.exit_code == 0, result.output
    out = run / "export" / "pt2"
    assert {path.name for path in out.iterdir()} == {"model.pt2", "fuzzyseg.json", "README.md"}
    assert result.stdout.startswith("100.0000 % of the labels equal PyTorch's over 12288 pixels of 2 images (64x96)")
    assert result.stdout.endswith(f"; written to {out}\n")
    image = noise(64, 96)
    _, labels = torch.export.load(out / "model.pt2").module()(torch.from_numpy(image).permute(2, 0, 1)[None])
    assert torch.equal(labels[0].long(), load(run).labels(image).long())
    assert json.loads((out / "fuzzyseg.json").read_text())["classes"] == ["class0", "class1", "class2"]


def test_an_export_that_differs_is_exit_1_and_leaves_nothing(run, images, tmp_path, monkeypatch):
    def wrong(model, predictor, folder):
        (folder / "model.pt2").touch()
        return lambda image: tuple(x.detach().roll(1, 1) for x in model(image))

    monkeypatch.setitem(formats.FORMATS, "pt2", wrong)
    result = call(run, "--format", "pt2", "--data", images, "--images", 2, "--out", tmp_path / "shipped")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith(f"error: {tmp_path / 'shipped'}: not written: ")
    assert "at most 0.01 % may differ. Look at image" in result.stderr
    assert not (tmp_path / "shipped").exists() and not list(tmp_path.glob(".*"))
    allowed = call(run, "--format", "pt2", "--data", images, "--out", tmp_path / "shipped", "--tolerance", 100)
    assert allowed.exit_code == 0 and (tmp_path / "shipped" / "model.pt2").is_file()


def test_defaults_and_options_are_handed_on(asked):
    assert call("runs/a").exit_code == 0
    assert asked == {"source": "runs/a", "form": "onnx", "images": 50, "tolerance": 0.0001}
    asked.clear()
    words = ["--format", "smp", "--out", "o", "--static", "512x640", "--data", "d", "--images", 3, "--tolerance", 2]
    assert call("runs/a", *words).stdout.endswith("; written to out\n")
    assert asked == {"source": "runs/a", "form": "smp", "out": Path("o"), "static": (512, 640), "data": "d",
                     "images": 3, "tolerance": 0.02}  # fmt: skip


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--static", "big"), "--static: found 'big'"),
        (("--format", "tflite"), "tflite"),
        (("--images", "0"), "--images"),
    ],
)
def test_what_is_no_size_format_or_number_is_refused(asked, words, named):
    result = call("runs/a", *words)
    assert result.exit_code == 2 and named in result.stderr and not asked


def test_a_missing_run_and_unknown_data_are_refused(run, tmp_path):
    missing = call(tmp_path / "nothing")
    assert missing.exit_code == 2 and str(tmp_path / "nothing") in missing.stderr
    unknown = call(run)
    assert unknown.exit_code == 2 and "--data DIR" in unknown.stderr
    assert not (run / "export").exists()
