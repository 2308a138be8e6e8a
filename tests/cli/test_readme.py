"""The code of the README runs: the loss in one's own loop, a network of one's own, and every command's options."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

from fuzzyseg.cli import app

TEXT = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def test_the_loss_in_ones_own_loop_takes_ten_lines_and_runs():
    code = next(code for code in PYTHON if "import fuzzy_positive_loss" in code)
    assert len([line for line in code.splitlines() if line.strip()]) == 10
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


@pytest.mark.slow
def test_a_network_of_ones_own_is_trained_and_loaded(tmp_path, monkeypatch):
    code = next(code for code in PYTHON if "network=Small" in code)
    rng = np.random.default_rng(0)
    for number in range(20):
        for folder, shape in (("images", (40, 48, 3)), ("masks", (40, 48))):
            path = tmp_path / "photos" / folder / f"{number:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 4 if folder == "masks" else 256, shape, dtype=np.uint8)).save(path)
    monkeypatch.chdir(tmp_path)
    small = code.replace('"steps": 2000', '"steps": 2, "workers": 0, "device": "cpu"').replace("[256, 256]", "[32, 32]")
    assert small.count("32, 32]") == 1
    scope = {"__name__": "__main__"}
    exec(small, scope)
    assert (tmp_path / "runs" / "small" / "result.json").is_file()
    labels = scope["predictor"].labels(np.zeros((33, 47, 3), np.uint8))
    assert labels.shape == (33, 47)
    assert int(labels.max()) < 4


def commands():
    blocks = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("fuzzyseg ")]
    return [shlex.split(line)[1:] for line in lines]


def test_the_commands_of_the_readme_name_options_that_exist():
    found = commands()
    assert {words[0] for words in found} == {"train", "evaluate", "predict"}
    for verb, *words in found:
        shown = CliRunner().invoke(app, [verb, "--help"]).stdout
        for word in words:
            assert not word.startswith("--") or f"  {word} " in shown, (verb, word)
