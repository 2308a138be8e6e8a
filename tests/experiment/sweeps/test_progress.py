"""The remaining time of a sweep, and the state of its running trainings."""

import itertools
import json
import math
import os
import time

from fuzzyseg.cli.sweep import run_text
from fuzzyseg.experiment.sweeps import Cell
from fuzzyseg.experiment.sweeps.progress import Pace, RunState, read_state


def cell(arm, seed=0):
    return Cell(arm, None, seed)


RUNS = {cell(arm, seed): (arm.split()[0], 100) for arm in ("cps hard", "cps fuzzy", "vat hard") for seed in range(3)}


def test_each_method_is_counted_with_its_own_pace_and_one_that_is_not_measured_with_all():
    pace = Pace(RUNS)
    assert math.isinf(pace.seconds(cell("cps hard")))
    pace.measure(cell("cps hard"), 10, 20.0)
    pace.measure(cell("vat hard"), 10, 60.0)
    assert pace.seconds(cell("cps hard", 1)) == 200  # of its arm
    assert pace.seconds(cell("cps fuzzy")) == 200  # of its method
    assert pace.seconds(cell("vat hard", 2)) == 600
    pace.measure(cell("cps fuzzy"), 10, 50.0)
    assert (pace.seconds(cell("cps fuzzy", 1)), pace.seconds(cell("cps hard", 1))) == (500, 200)
    pace.measure(cell("cps hard", 2), 10, 0.0)  # late: it is no faster for that
    assert pace.seconds(cell("cps hard", 1)) == 200
    other = Pace({**RUNS, cell("gct hard"): ("gct", 50)}, dict(pace.measured))
    assert other.seconds(cell("gct hard")) == (2 + 6 + 5) / 3 * 50


def test_runs_still_to_start_count_for_the_remaining_time_on_as_many_lanes_as_there_are():
    pace = Pace(RUNS, {cell("cps hard"): 1.0, cell("vat hard"): 3.0})
    waiting = [cell("cps hard", 1), cell("cps hard", 2), cell("vat hard", 1), cell("vat hard", 2)]
    running = {cell("cps hard"): 50.0}
    assert pace.remaining(running, waiting, 1) == 50 + 100 + 100 + 300 + 300
    # two lanes, one of them free: 100, 200 there; 150 and, when both are at 150 and 200, 450 and 500
    assert pace.remaining({cell("cps hard"): 50.0, cell("vat hard"): 100.0}, waiting, 2) == 500
    assert pace.remaining(running, [], 4) == 50
    # one that has not measured itself yet takes as long as others of its method
    assert pace.remaining({cell("vat hard", 1): math.inf}, [], 1) == 300
    assert math.isinf(Pace(RUNS).remaining({cell("cps hard"): math.inf}, waiting, 1))


def test_waiting_runs_are_started_in_turn_in_the_lane_that_is_free_first():
    """Against a simulation second by second."""
    for order in itertools.permutations(["cps hard", "cps fuzzy", "vat hard"]):
        pace = Pace(RUNS, {cell("cps hard"): 0.03, cell("cps fuzzy"): 0.07, cell("vat hard"): 0.02})
        waiting = [cell(arm, seed) for seed in (1, 2) for arm in order]
        lanes, queue, now = [4, 1], [round(pace.seconds(each)) for each in waiting], 0
        while queue or any(lanes):
            lanes = [left or (queue.pop(0) if queue else 0) for left in lanes]
            lanes, now = [max(0, left - 1) for left in lanes], now + any(lanes)
        left = pace.remaining({cell("cps hard"): 4.0, cell("vat hard"): 1.0}, waiting, 2)
        assert round(left) == now


def test_the_state_of_a_training_is_read_from_its_log(tmp_path):
    metrics = tmp_path / "metrics.jsonl"
    assert read_state("a", 50, metrics, 3.0) == RunState("a", 0, 50)
    lines = [{"step": 10, "loss": 2.0, "evaluation": {"miou": 0.25}, "time": {"eta_seconds": 80.0}},
             {"step": 20, "loss": 1.5, "time": {"eta_seconds": 60.0}}]  # fmt: skip
    metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    written = time.time() - 40
    os.utime(metrics, (written, written))
    state = read_state("a", 50, metrics, 100.0)
    assert (state.step, state.steps, state.loss, state.score) == (20, 50, 1.5, 0.25)
    assert 15 < state.seconds_left <= 20  # 60, 40 seconds ago
    assert 50 < read_state("a", 50, metrics, 5.0).seconds_left <= 55  # a resumed one: the line is of the time before
    text = run_text(state)
    assert "20/50" in text and "1.5" in text and "25.00" in text
    assert "nan" not in run_text(RunState("a", 0, 50)) and "inf" not in run_text(RunState("a", 0, 50))
