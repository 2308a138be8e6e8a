"""A training with an experiment tracker that fails: at its start, in the middle, at the end."""

from __future__ import annotations

import sys
from functools import partial
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest

import fuzzyseg
from support.tiny_data import settings, write_folder
from support.tiny_network import TinyNetwork


def failing(function):
    """A package whose `function` raises an error."""
    package = ModuleType("trackio")
    package.__spec__ = ModuleSpec("trackio", None)
    for name in ("init", "log", "finish"):
        setattr(package, name, lambda *args, **named: None)
    setattr(package, function, lambda *args, **named: 1 / 0)
    return package


def train(tmp_path, monkeypatch, function):
    monkeypatch.setitem(sys.modules, "trackio", failing(function))
    train = {"steps": 2, "log_every": 1, "evaluate": False}
    config = settings(write_folder(tmp_path / "data"), tmp_path / "run", train=train) | {"track": {"to": "trackio"}}
    return fuzzyseg.train(config, network=partial(TinyNetwork, classes=3), quiet=True)


@pytest.mark.parametrize("function", ["log", "finish"])
def test_a_tracker_that_fails_ends_no_training(tmp_path, monkeypatch, function, caplog):
    result = train(tmp_path, monkeypatch, function)
    assert result.finished
    assert (tmp_path / "run/model/model.safetensors").is_file() and (tmp_path / "run/result.json").is_file()
    assert sum("trackio" in message for message in caplog.messages) == 1


def test_a_tracker_that_cannot_start_leaves_no_record_of_a_run(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"track\.to"):
        train(tmp_path, monkeypatch, "init")
    assert not (tmp_path / "run/config.yaml").exists() and not (tmp_path / "run/split.json").exists()
