import math
from contextlib import closing

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fuzzyseg.run.tensorboard import TensorBoard


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
    monkeypatch.setattr("fuzzyseg.run.tensorboard.available", lambda: False)
    with pytest.raises(ValueError, match=r"fuzzyseg\[tensorboard\]"):
        TensorBoard(tmp_path)
