"""Progress of a sweep: step, loss and score of the active runs, and the remaining time."""

import heapq
import math
import statistics
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from fuzzyseg.experiment.sweeps.grid import Cell
from fuzzyseg.run.logs import SCORE, read_lines


@dataclass(frozen=True)
class RunState:
    """Progress of an active run.

    step: number of completed steps, out of `steps`. loss: loss of the last logged step. score: mIoU of the last
    evaluation, in [0, 1]. seconds_left: the run's estimate; infinite before the first logged step.
    """

    name: str
    step: int
    steps: int
    loss: float | None = None
    score: float | None = None
    seconds_left: float = math.inf


@dataclass(frozen=True)
class Progress:
    """Active runs, finished and total run counts, and the seconds until all runs finish (infinite if unknown)."""

    running: list[RunState]
    done: int
    total: int
    seconds_left: float


def read_state(name: str, steps: int, metrics: Path, elapsed: float) -> RunState:
    """Read the progress of a run, started `elapsed` seconds ago, from its metrics.jsonl if it exists."""
    lines = read_lines(metrics) if metrics.is_file() else []
    if not lines:
        return RunState(name, 0, steps)
    scores = [line["evaluation"][SCORE] for line in lines if SCORE in (line.get("evaluation") or {})]
    left = lines[-1].get("time", {}).get("eta_seconds", math.inf)
    age = min(
        elapsed, max(0.0, time.time() - metrics.stat().st_mtime)
    )  # a resumed run's last line may predate its start
    state = RunState(name, lines[-1]["step"], steps, lines[-1].get("loss"), scores[-1] if scores else None)
    return replace(state, seconds_left=max(0.0, left - age))


@dataclass
class Pace:
    """Remaining time of a sweep, estimated from the speed of its runs.

    runs: method and number of steps of each run. measured: seconds per step of each run.
    """

    runs: Mapping[Cell, tuple[str, int]]
    measured: dict[Cell, float] = field(default_factory=dict)

    def measure(self, cell: Cell, steps: int, seconds: float) -> None:
        """Record that a run takes `seconds` for `steps`. Ignores 0: the run has then exceeded its estimate."""
        if steps > 0 and 0 < seconds < math.inf:
            self.measured[cell] = seconds / steps

    def seconds(self, cell: Cell) -> float:
        """Estimate a run's duration from runs of the same configuration, else of the same method, else all runs."""
        method, steps = self.runs[cell]
        arms = [pace for other, pace in self.measured.items() if other.arm == cell.arm]
        methods = [pace for other, pace in self.measured.items() if self.runs[other][0] == method]
        known = arms or methods or list(self.measured.values())
        return statistics.mean(known) * steps if known else math.inf

    def remaining(self, running: Mapping[Cell, float], waiting: Iterable[Cell], workers: int) -> float:
        """Return the seconds until all runs have ended, with `workers` parallel runs. running: seconds left for each.

        Each waiting run is assigned in order to the first free worker.
        """
        free = [self.seconds(cell) if math.isinf(left) else left for cell, left in running.items()]
        free += [0.0] * (workers - len(free))
        heapq.heapify(free)
        for cell in waiting:
            heapq.heapreplace(free, free[0] + self.seconds(cell))
        return max(free)
