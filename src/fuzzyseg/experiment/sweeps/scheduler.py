"""Execution of a sweep: one process per run, so a crash affects no other run. Interrupted runs are resumed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fuzzyseg.config import dump_yaml
from fuzzyseg.data.text import counted
from fuzzyseg.experiment.sweeps.checks import check_start, finished, origin, refuse
from fuzzyseg.experiment.sweeps.grid import Cell, Grid
from fuzzyseg.experiment.sweeps.progress import Pace, Progress, RunState, read_state
from fuzzyseg.experiment.sweeps.rows import differences, identity, read_row, row_of, same_runs
from fuzzyseg.experiment.sweeps.tables import miou, tables
from fuzzyseg.networks import check_names
from fuzzyseg.plugins import imported_files
from fuzzyseg.run.files import write_text
from fuzzyseg.run.folder import RunFolder

POLL = 0.5
"""Seconds between polls of the running processes."""

Say = Callable[[str], None]
Watch = Callable[[Progress], None]
"""Called with the progress at every poll."""


@dataclass
class SweepResult:
    """Rows of finished runs, reasons for failed runs, whether the sweep was interrupted, and the Markdown tables."""

    rows: dict[Cell, dict[str, Any]]
    failed: dict[Cell, str]
    interrupted: bool
    table: str


@dataclass
class _Running:
    cell: Cell
    process: subprocess.Popen[bytes]
    begun: float
    log_size: int
    """Size of the run's log before this attempt, in bytes."""
    first_step: int


def sweep(
    grid: Grid,
    out: str | Path,
    *,
    results: str | Path | None = None,
    jobs: int = 1,
    discard: bool = False,
    only_table: bool = False,
    any_code: bool = False,
    say: Say = print,
    watch: Watch | None = None,
) -> SweepResult:
    """Execute all runs that have no row yet, `jobs` at a time, and tabulate all rows.

    out: folder for the runs and table.md. results: folder of the rows (result files), one JSON file per run. Default:
    out/rows. A run is skipped if it has a row there, or if another row has the same settings. discard: delete a run's
    folder once its row is written. any_code: accept results of other versions of the code. Interrupted runs are
    resumed; failed runs are reported, omitted from the table and retried by the next call. On SIGINT and SIGTERM,
    active runs save a checkpoint and stop. Raises ConfigError if a row, or pretraining in `out`, has different
    settings, data or code; DataError if the images of a run cannot be split; RunFolderError if another sweep is running
    in `out`.
    """
    out = Path(out).resolve()
    results = Path(results).resolve() if results else out / "rows"
    made_from = {} if only_table else origin(grid, out, say, any_code=any_code)
    settings = {cell: identity(grid.config(cell, out)) for cell in grid.cells}
    rows = {cell: row for cell in grid.cells if (row := read_row(results / f"{cell.name}.json")) is not None}
    for cell, row in rows.items():
        changed = differences(row["settings"], settings.pop(cell))
        refuse(results / f"{cell.name}.json", "row", changed, row, made_from)
    rows |= same_runs(settings, results, made_from)
    if only_table:
        return SweepResult(rows, {}, False, tables(grid, rows))
    waiting = [cell for cell in grid.cells if cell not in rows]
    for arch, encoder in {(net.arch, net.encoder) for net in (grid.config(cell, out).network for cell in waiting)}:
        check_names(arch, encoder)
    starts = list(dict.fromkeys(start for cell in waiting for start in grid.starts(cell)))
    for start in starts:
        check_start(grid, out, start, made_from)
    starts = [start for start in starts if not finished(out, start)]
    text = f"{counted(len(grid.cells), 'run')}: {len(rows)} finished (rows in {results}), {len(waiting)} to do"
    if starts:
        steps = grid.config(starts[0], out).train.steps
        text += f", after {counted(len(starts), 'run')} of supervised pretraining of {steps} steps"
    say(text)
    scheduler = _Scheduler(grid, out, results, jobs, discard, say, rows, [*starts, *waiting])
    with RunFolder(out).lock(f"finished results in {results} are intact: free disk space, then repeat the command"):
        results.mkdir(parents=True, exist_ok=True)
        interrupted = scheduler.run(watch)
        return SweepResult(rows, scheduler.failed, interrupted, scheduler.write_table())


@dataclass
class _Scheduler:
    grid: Grid
    out: Path
    results: Path
    jobs: int
    discard: bool
    say: Say
    rows: dict[Cell, dict[str, Any]]
    waiting: list[Cell]
    failed: dict[Cell, str] = field(default_factory=dict)
    running: list[_Running] = field(default_factory=list)
    done: int = 0

    def __post_init__(self) -> None:
        self.total = len(self.waiting)
        configs = {cell: self.grid.config(cell, self.out) for cell in self.waiting}
        self.pace = Pace({cell: (config.method.name, config.train.steps) for cell, config in configs.items()})

    def run(self, watch: Watch | None) -> bool:
        """Execute the waiting runs, at most `jobs` at a time. Returns whether the sweep was interrupted."""
        try:
            with _sigterm_as_interrupt():
                while self.running or self._next() is not None:
                    while len(self.running) < self.jobs and (cell := self._next()) is not None:
                        self._begin(cell)
                    time.sleep(POLL)
                    for each in [each for each in self.running if each.process.poll() is not None]:
                        self.running.remove(each)
                        self._end(each)
                    if watch is not None:
                        watch(self._progress())
        except KeyboardInterrupt:
            self.say("interrupted: the active runs save a checkpoint and stop; repeat the command to continue")
            return True
        finally:  # also after an error: leave no run behind
            for each in self.running:
                each.process.terminate()  # not SIGINT, which a child of a background job ignores
            for each in self.running:
                each.process.wait()
        self.failed |= dict.fromkeys(self.waiting, "its supervised pretraining failed")
        return False

    def write_table(self) -> str:
        """Write table.md and return it."""
        text = tables(self.grid, self.rows, self.failed)
        write_text(self.out / "table.md", text)
        return text

    def _next(self) -> Cell | None:
        """Return the first waiting run whose supervised pretraining is finished; None if there is none."""
        startable = (c for c in self.waiting if all(finished(self.out, start) for start in self.grid.starts(c)))
        return next(startable, None)

    def _begin(self, cell: Cell) -> None:
        self.waiting.remove(cell)
        step = self._state(cell, 0.0).step
        (self.out / cell.name).mkdir(parents=True, exist_ok=True)
        recipe, log = (self.out / f"{cell.name}.{suffix}" for suffix in ("yaml", "log"))
        write_text(recipe, dump_yaml(self.grid.config(cell, self.out)))
        environment = dict(os.environ)
        imports = [word for file in imported_files() for word in ("--import", file)]
        if self.jobs > 1:  # oversubscribing threads makes small steps many times slower
            environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // self.jobs)))
        with log.open("ab") as file:
            size = file.tell()
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "fuzzyseg", "train", str(recipe), "--resume", *imports],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=environment,
                start_new_session=True,  # Ctrl-C does not reach it; `run` terminates it instead
            )
        self.running.append(_Running(cell, process, time.monotonic(), size, step))
        self.say(f"[{self.done + len(self.running)}/{self.total}] {cell.name}: started, log in {log}")

    def _end(self, ended: _Running) -> None:
        self.done += 1
        cell, code = ended.cell, ended.process.returncode
        seconds = time.monotonic() - ended.begun
        if code != 0 or not finished(self.out, cell):
            row, reason = {}, _last_error(self.out / f"{cell.name}.log", ended.log_size, code)
        else:
            self.pace.measure(cell, self.pace.runs[cell][1] - ended.first_step, seconds)
            if cell.is_start:
                self.say(f"{cell.name}: finished in {seconds:.0f} s")
                return
            row = row_of(self.grid, cell, self.out)
            scored = row["result"]["last"] is not None
            reason = "" if scored else "ended without a score: there are no validation images with masks (data.val)"
        if reason:
            self.failed[cell] = reason
            self.say(f"{cell.name}: failed after {seconds:.0f} s: {reason}")
            return
        write_text(self.results / f"{cell.name}.json", json.dumps(row, indent=1, ensure_ascii=False) + "\n")
        self.rows[cell] = row
        self.write_table()
        if self.discard:
            shutil.rmtree(self.out / cell.name)
        self.say(f"{cell.name}: finished in {seconds:.0f} s, mIoU {miou(row):.2f} %")

    def _state(self, cell: Cell, elapsed: float) -> RunState:
        return read_state(cell.name, self.pace.runs[cell][1], RunFolder(self.out / cell.name).metrics, elapsed)

    def _progress(self) -> Progress:
        states = [self._state(each.cell, time.monotonic() - each.begun) for each in self.running]
        left = {each.cell: state.seconds_left for each, state in zip(self.running, states, strict=True)}
        for cell, state in zip(left, states, strict=True):
            self.pace.measure(cell, state.steps - state.step, state.seconds_left)
        return Progress(states, self.done, self.total, self.pace.remaining(left, self.waiting, self.jobs))


def _last_error(log: Path, start: int, code: int) -> str:
    """Return the last error (or, if none, the last line) in a log after byte offset `start`, and the exit code."""
    text = log.read_bytes()[start:].decode("utf-8", errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    last = ([line for line in lines if line.startswith("error: ")] or lines or [""])[-1]
    return last + (f" (killed by signal {-code}; out of memory?)" if code < 0 else f" (exit code {code})")


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGTERM, so that active runs are saved if a job scheduler stops the sweep."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
