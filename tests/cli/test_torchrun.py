"""Commands under torchrun."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from fuzzyseg.cli import app
from fuzzyseg.cli.errors import Verb, explained
from fuzzyseg.config import ConfigError
from fuzzyseg.experiment.process_group import process_group
from fuzzyseg.inference import save_model
from fuzzyseg.networks import build_network
from fuzzyseg.ops import distributed
from fuzzyseg.run.environment import first_process
from support.small_images import card
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


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"WORLD_SIZE": ""}, "WORLD_SIZE: found ''"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE: found 'two'"),
        ({"WORLD_SIZE": "-1"}, "WORLD_SIZE: found '-1'"),
        ({"WORLD_SIZE": "2", "RANK": ""}, "RANK: found ''"),
    ],
)
@pytest.mark.parametrize(
    "command", [["split", "photos", "--out", "split"], ["train", "--data", "photos", "--out", "r"]]
)
def test_odd_variables_are_one_sentence(tmp_path, monkeypatch, command, variables, words):
    write_folder(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    torchrun = {"RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for name, value in (torchrun | variables).items():
        monkeypatch.setenv(name, value)
    result = CliRunner().invoke(app, [*command, "network.weights=none"])
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {words}") and result.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({}, "RANK, MASTER_ADDR, MASTER_PORT not set"),
        ({"RANK": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, "RANK is 2"),
    ],
)
def test_a_group_that_cannot_form_is_refused(monkeypatch, variables, words):
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"WORLD_SIZE": "2"} | variables).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=words), process_group(torch.device("cpu")):
        pass


@pytest.mark.parametrize(
    ("variables", "first"),
    [({}, True), ({"RANK": "1"}, True), ({"WORLD_SIZE": "2"}, True), ({"WORLD_SIZE": "2", "RANK": "1"}, False)],
)
def test_a_single_process_is_the_first(monkeypatch, variables, first):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert first_process() == first


def test_a_lost_connection_is_another_process_that_failed(monkeypatch):
    def lost(*arguments):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer")

    monkeypatch.setattr(distributed, "active", lambda: True)
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(distributed.dist, "all_gather", lost)
    with pytest.raises(RuntimeError) as found:
        distributed.gather(torch.zeros(2))
    assert explained(found.value, "evaluate") == ("fuzzyseg evaluate: another process failed; see its message", 1)


def on_two_processes(*command):
    """What a command prints under torchrun: on stdout, and on stderr."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "fuzzyseg"]
    done = subprocess.run([*start, *map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, done.stderr


@pytest.mark.slow
def test_torchrun_writes_once(tmp_path):
    folder, out = write_folder(tmp_path / "data"), tmp_path / "split"
    printed, told = on_two_processes("split", folder, "--labelled", "5", "--out", out)
    assert printed.count("wrote split ") == 1 and told.count("uses only one of the 2 processes") == 1
    assert len(json.loads((out / "split.json").read_text())["labelled"]) == 5


@pytest.mark.slow
def test_a_model_is_applied_and_scored_once(tmp_path):
    folder, model, out = write_folder(tmp_path / "data"), tmp_path / "model", tmp_path / "out"
    network = build_network("FPN", "mobilenet_v2", weights="none", channels=3, classes=3)
    save_model(
        model, network, card=replace(card(arch="FPN", encoder="mobilenet_v2"), classes=["low", "middle", "high"])
    )
    printed, _ = on_two_processes("predict", model, folder / "images" / "val", "--out", out, "--device", "cpu")
    assert printed == f"3 images predicted; results are in {out}\n"
    assert len(list((out / "masks").iterdir())) == 3
    scoring = ("evaluate", model, "--data", folder, "--device", "cpu", "--json")
    printed, _ = on_two_processes(*scoring)
    alone = CliRunner().invoke(app, [*map(str, scoring)])
    assert json.loads(printed) == json.loads(alone.stdout) and json.loads(printed)["images"] == 3
