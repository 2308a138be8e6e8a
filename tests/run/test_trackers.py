import math
import sys
from contextlib import closing
from functools import partial
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fuzzyseg.run.trackers import TensorBoard, Tracker


def read(folder):
    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def line(step, value):
    return {"step": step, "losses": {"sup": value}, "metrics": {"k": [value, 0.5]}, "time": {"memory_mib": None}}


def test_numbers_lists_and_nothing_else(tmp_path):
    with closing(TensorBoard(tmp_path)) as board:
        board.write({**line(1, 0.25), "evaluation": {"miou": 0.75, "protocol": "whole", "classes": {"a": math.nan}}})
    found = read(tmp_path)
    assert set(found) == {"losses/sup", "metrics/k/0", "metrics/k/1", "evaluation/miou", "evaluation/classes/a"}
    assert found["metrics/k/1"] == [(1, 0.5)]


def test_resuming_hides_what_was_written_past_the_checkpoint(tmp_path):
    with closing(TensorBoard(tmp_path)) as board:
        for step in (1, 10, 20):
            board.write(line(step, 0.25))
    with closing(TensorBoard(tmp_path, keep_to=10)) as board:
        board.write(line(20, 0.5))
    assert read(tmp_path)["losses/sup"] == [(1, 0.25), (10, 0.25), (20, 0.5)]


def test_without_the_package_the_message_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr("fuzzyseg.run.trackers.available", lambda: False)
    with pytest.raises(ValueError, match=r"fuzzyseg\[tensorboard\]"):
        TensorBoard(tmp_path)


class Package(ModuleType):
    """A package with the functions that trackio and wandb share."""

    def __init__(self, name):
        super().__init__(name)
        self.__spec__ = ModuleSpec(name, None)
        self.calls = []
        for function in ("init", "log", "finish"):
            setattr(self, function, partial(self._record, function))

    def _record(self, function, *args, **named):
        self.calls.append((function, args, named))


@pytest.mark.parametrize("name", ["trackio", "wandb"])
def test_a_tracker_receives_the_run_and_its_numbers_once(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, package := Package(name))
    for kept in (0, 10):
        with closing(Tracker(name, "seams", tmp_path / "a", {"seed": 3}, keep_to=kept)) as tracker:
            for step in (1, 10, 20):
                tracker.write(line(step, 0.25))
    opened = [named for function, _, named in package.calls if function == "init"]
    assert opened[0] == opened[1]  # the same run, which both packages resume
    assert opened[0]["project"] == "seams"
    assert opened[0]["name"].startswith("a")
    assert opened[0]["config"] == {"seed": 3}
    assert [named["step"] for function, _, named in package.calls if function == "log"] == [1, 10, 20, 20]
    numbers = next(args[0] for function, args, _ in package.calls if function == "log")
    assert numbers == {"losses/sup": 0.25, "metrics/k/0": 0.25, "metrics/k/1": 0.5}
    assert package.calls[-1][0] == "finish"


@pytest.mark.parametrize(("name", "key"), [("wandb", "id"), ("trackio", "name")])
def test_runs_of_one_name_in_two_folders_are_two_runs(tmp_path, monkeypatch, name, key):
    monkeypatch.setitem(sys.modules, name, package := Package(name))
    for parent in ("x", "y"):
        Tracker(name, "seams", tmp_path / parent / "a", {})
    assert package.calls[0][2][key] != package.calls[1][2][key]


def fail(*args, **named):
    raise RuntimeError("no route to host")


def test_a_tracker_that_fails_is_left_out_with_one_warning(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "wandb", package := Package("wandb"))
    works = package.log
    with closing(Tracker("wandb", "seams", tmp_path, {})) as tracker:
        tracker.write(line(1, 0.25))
        package.log = fail
        tracker.write(line(2, 0.25))
        package.log = works
        tracker.write(line(3, 0.25))
        package.finish = fail
    assert [named["step"] for function, _, named in package.calls if function == "log"] == [1]
    (warning,) = caplog.messages
    assert "wandb" in warning and "no route to host" in warning


def test_a_tensorboard_that_fails_is_left_out_with_one_warning(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter.add_scalar", fail)
    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter.close", fail)
    with closing(TensorBoard(tmp_path)) as board:
        board.write(line(1, 0.25))
        board.write(line(2, 0.25))
    assert len(caplog.messages) == 1


def test_a_tracker_that_cannot_start_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", package := Package("wandb"))
    package.init = fail
    with pytest.raises(ValueError, match=r"track\.to: wandb .*no route to host"):
        Tracker("wandb", "seams", tmp_path, {})


def test_a_missing_tracker_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("fuzzyseg.run.trackers.available", lambda package: False)
    with pytest.raises(ValueError, match="pip install trackio"):
        Tracker("trackio", "seams", tmp_path, {})
