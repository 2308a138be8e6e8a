"""Each example runs on generated data; what it offers is found by the command line too."""

from __future__ import annotations

import json
import runpy
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fuzzyseg import plugins
from fuzzyseg.cli import app

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
    assert {name for name, _ in marks[0].args[1]} == {path.stem for path in EXAMPLES.glob("*.py")}


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
