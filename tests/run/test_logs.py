import json
import math
from contextlib import closing

import pytest

from fuzzyseg.run import files, logs
from fuzzyseg.run.logs import MetricsLog, Throughput, peak_memory_mib, plain, read_lines, truncate_after


def write(path, steps, tail=""):
    path.write_text("".join(json.dumps({"step": step, "x": step / 3}) + "\n" for step in steps) + tail)


def steps(path):
    return [line["step"] for line in read_lines(path)]


def test_every_line_is_on_disk_at_once_and_is_json(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with closing(MetricsLog(path)) as log:
        log.write({"step": 1, "losses": {"a": 0.1}, "k": [1.0, math.nan, (math.inf, -math.inf)]})
        text = path.read_text()
        assert text.endswith("\n")
        assert "NaN" not in text
        assert json.loads(text) == {"step": 1, "losses": {"a": 0.1}, "k": [1.0, None, [None, None]]}


def test_plain_leaves_the_rest_alone():
    assert plain({"a": 1, 2: None, "b": [True, "x", 0.5]}) == {"a": 1, "2": None, "b": [True, "x", 0.5]}


def test_lines_past_the_step_are_cut_off(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, [1, 10, 20, 30])
    before = path.read_text().splitlines()
    truncate_after(path, 20)
    assert path.read_text().splitlines() == before[:3]
    truncate_after(path, 15)
    assert steps(path) == [1, 10]


@pytest.mark.parametrize("tail", ['{"step": 40, "x"', '{"st', "\0\0\0", "40"])
def test_a_broken_last_line_is_cut_off(tmp_path, tail):
    path = tmp_path / "metrics.jsonl"
    write(path, [1, 10], tail)
    truncate_after(path, 100)
    with closing(MetricsLog(path, keep_to=100)) as log:
        log.write({"step": 11})
    assert steps(path) == [1, 10, 11]


def test_a_broken_line_elsewhere_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"loss": 2}\n{"step": 3}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2: .*step"):
        truncate_after(path, 2)


def test_a_new_log_starts_anew_and_a_continued_one_continues(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, [1, 10, 20])
    with closing(MetricsLog(path, keep_to=10)) as log:
        log.write({"step": 20})
    assert steps(path) == [1, 10, 20]
    with closing(MetricsLog(path)) as log:
        log.write({"step": 1})
    assert steps(path) == [1]


def test_cutting_off_is_all_or_nothing(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    write(path, [1, 10, 20])

    def crash(*_):
        raise OSError("power")

    monkeypatch.setattr(files.os, "replace", crash)
    with pytest.raises(OSError, match="power"):
        truncate_after(path, 10)
    assert steps(path) == [1, 10, 20]
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_missing_file_stays_missing(tmp_path):
    truncate_after(tmp_path / "metrics.jsonl", 3)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(logs.time, "monotonic", lambda: now[0])
    return now


def test_throughput(clock):
    throughput = Throughput(10)
    for _ in range(2):
        clock[0] += 2.0
        throughput.step(8)
    expected = {"images_per_second": 4.0, "seconds_per_step": 2.0, "elapsed_seconds": 4.0, "eta_seconds": 16.0}
    assert throughput.read() == expected
    with throughput.pause():
        clock[0] += 3.0
    clock[0] += 1.0
    throughput.step(8)
    # 8 images in the second that was not paused; 7 steps are left, and the 3 so far took 8 seconds in all
    expected = {"images_per_second": 8.0, "seconds_per_step": 1.0, "elapsed_seconds": 8.0, "eta_seconds": 8 / 3 * 7}
    assert throughput.read() == pytest.approx(expected)


def test_peak_memory_is_that_of_a_python_process():
    peak = peak_memory_mib()
    if peak is None:
        pytest.skip("this system does not tell")
    assert 5 < peak < 1e6
