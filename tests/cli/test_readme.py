"""The code of the README: the loss in one's own loop runs, settings are valid, the commands' options exist."""

import re
import shlex
from pathlib import Path

import torch
from torch import nn
from typer.testing import CliRunner

import fuzzyseg
from fuzzyseg.cli import app
from fuzzyseg.config import validate

TEXT = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def test_the_loss_in_ones_own_loop_runs():
    code = next(code for code in PYTHON if "import fuzzy_positive_loss" in code)
    torch.manual_seed(0)
    student, teacher = (nn.Conv2d(3, 4, 3, stride=2, padding=1) for _ in range(2))
    before = [p.detach().clone() for p in (*student.parameters(), *teacher.parameters())]
    images = torch.rand(2, 2, 3, 8, 8)
    scope = {
        "unlabelled": [(images[0], images[1])],
        "teacher": teacher,
        "student": student,
        "optimiser": torch.optim.SGD(student.parameters(), lr=0.1),
    }
    exec(code, scope)
    assert torch.isfinite(scope["loss"])
    moved = [
        not torch.equal(p, old) for p, old in zip((*student.parameters(), *teacher.parameters()), before, strict=True)
    ]
    assert moved == [True, True, False, False]


def test_training_from_python_asks_for_valid_settings(monkeypatch):
    code = next(code for code in PYTHON if "fuzzyseg.train(" in code)
    asked = []
    monkeypatch.setattr(fuzzyseg, "train", asked.append, raising=False)
    monkeypatch.setattr(fuzzyseg, "load", asked.append, raising=False)
    exec(code, {})
    settings, source = asked
    assert validate(settings).loss.threshold == 0.95
    assert source == settings["out"]


def commands():
    blocks = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("fuzzyseg ")]
    return [shlex.split(line)[1:] for line in lines]


def test_the_commands_of_the_readme_name_options_that_exist():
    found = commands()
    assert {words[0] for words in found} >= {"check", "train", "evaluate", "predict"}
    for verb, *words in found:
        shown = CliRunner().invoke(app, [verb, "--help"]).stdout
        for word in words:
            assert not word.startswith("--") or f"  {word} " in shown, (verb, word)
