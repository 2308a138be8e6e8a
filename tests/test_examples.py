"""Each example runs on generated data; what it offers is found by the command line too."""

from __future__ import annotations

import json
import runpy
import shlex
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from fuzzyseg import plugins
from fuzzyseg.cli import app
from fuzzyseg.data.datasets.synthetic import write_demo
from fuzzyseg.inference.export import export_model
from support.small_images import item, noise, predictor
from support.tiny_network import TinyNetwork

EXAMPLES = Path(__file__).parents[1] / "examples"
QUICK = shlex.split(
    "--encoder resnet18 --weights none --arch Unet --steps 1 --batch 2 --crop 64 --workers 0 --device cpu"
)


@pytest.fixture(autouse=True)
def apart(tmp_path, monkeypatch):
    """A working folder of its own, and no imports of another test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plugins, "_modules", {})


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("own_method", "mean IoU:"),
        ("own_loss", "mean IoU:"),
        ("own_dataset", "IoU of the disc:"),
        ("loss_in_your_loop", "step 2: loss"),
        ("paper_figures", "analysis/"),
    ],
)
def test_an_example_runs(name, printed, capsys):
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert printed in capsys.readouterr().out


def test_there_is_a_test_of_each_example():
    marks = test_an_example_runs.pytestmark
    tested = {name for name, _ in marks[0].args[1]} | {"deploy_onnx"}
    assert tested == {path.stem for path in EXAMPLES.glob("*.py")}


@pytest.mark.parametrize("static", [None, (32, 48)])
@pytest.mark.skipif(torch.__version__ < "2.8", reason="export to ONNX needs PyTorch 2.8")
def test_an_exported_model_runs_without_torch(static, tmp_path):
    """In a process in which torch cannot be imported; windows of a static size are padded at the border."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason="needs the extra onnx")
    colours = [(1, 2, 3), (4, 5, 6), (7, 8, 9)]
    model = predictor(TinyNetwork(classes=3), colours=colours)
    pixels = noise(70, 100)
    export_model(
        model, [item(tmp_path, "im", pixels, pixels[..., 0] % 3)], tmp_path / "out", form="onnx", static=static
    )
    code = f"import sys, runpy; sys.modules['torch'] = None; runpy.run_path({str(EXAMPLES / 'deploy_onnx.py')!r})"
    words = [str(tmp_path / "out" / "model.onnx"), str(tmp_path / "images" / "im.png"), str(tmp_path / "mask.png")]
    ran = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    result = Image.open(tmp_path / "mask.png")
    assert result.getpalette()[:9] == [value for colour in colours for value in colour]
    tall, wide = static or (70, 100)
    expected = np.zeros((70, 100), np.uint8)
    for top in range(0, 70, tall):
        for left in range(0, 100, wide):
            part = pixels[top : top + tall, left : left + wide]
            padded = np.pad(part, ((0, tall - part.shape[0]), (0, wide - part.shape[1]), (0, 0)), mode="edge")
            labels = model.labels(padded).numpy()[: part.shape[0], : part.shape[1]]
            expected[top : top + tall, left : left + wide] = labels
    assert (np.asarray(result) == expected).mean() > 0.999


def test_the_command_line_finds_method_loss_data_and_metric():
    files = [f"--import={EXAMPLES / name}.py" for name in ("own_method", "own_loss", "own_dataset")]
    words = ["--data", "discs", "--method", "self_training", "--loss", "focal", "loss.options.gamma=0", "--out", "run"]
    trained = CliRunner().invoke(app, ["train", *files, *words, *QUICK])
    assert trained.exit_code == 0, trained.output
    result = json.loads(Path("run/result.json").read_text())
    assert (result["method"], result["loss"]) == ("self_training", "focal")
    assert set(result["last"]["per_class"]) == {"ground", "disc"}
    assert result["best"]["disc_iou"] == result["last"]["disc_iou"] == result["last"]["per_class"]["disc"]
    scored = CliRunner().invoke(app, ["evaluate", "run", *files, "--json"])
    assert json.loads(scored.stdout)["disc_iou"] == result["last"]["disc_iou"]
    outside = CliRunner().invoke(app, ["evaluate", "run/model", *files, "--data", "discs", "--json"])
    assert json.loads(outside.stdout)["disc_iou"] == result["last"]["disc_iou"]
    shown = CliRunner().invoke(app, ["methods", *files, "self_training"])
    assert "method.weight: Weight of the loss" in shown.stdout


@pytest.mark.slow
def test_the_notebook_runs(monkeypatch):
    cells = json.loads((EXAMPLES / "first_training.ipynb").read_text(encoding="utf-8"))["cells"]
    monkeypatch.setattr("fuzzyseg.data.datasets.synthetic.write_demo", partial(write_demo, size=(64, 64)))
    names: dict[str, object] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]).replace("STEPS = 60", "STEPS = 2"), names)
    assert names["prediction"].labels.shape == (64, 64)
    assert "fuzzy" in Path("notebook/report.html").read_text(encoding="utf-8")
