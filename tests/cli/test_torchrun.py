"""Commands under torchrun."""

import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from fuzzyseg.cli import app
from fuzzyseg.cli.errors import Verb
from support.tiny_data import write_folder


def test_every_command_knows_of_other_processes():
    assert all(command.cls is Verb for command in app.registered_commands)


@pytest.mark.parametrize("rank", [0, 1])
def test_the_first_process_works_and_the_others_end(tmp_path, monkeypatch, rank):
    folder, out = write_folder(tmp_path / "data"), tmp_path / "split"
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = CliRunner().invoke(app, ["split", str(folder), "--labelled", "5", "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert out.exists() == (rank == 0)
    assert ("one of the 2 processes" in result.stderr) == (rank == 0)
    assert rank == 1 or os.environ.get("WORLD_SIZE", "1") == "1"  # nor would a training of it wait for the other


@pytest.mark.slow
def test_torchrun_writes_once(tmp_path):
    folder, out = write_folder(tmp_path / "data"), tmp_path / "split"
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "fuzzyseg"]
    command = ["split", str(folder), "--labelled", "5", "--out", str(out)]
    done = subprocess.run([*start, *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("is written to") == 1
    assert len(json.loads((out / "split.json").read_text())["labelled"]) == 5
