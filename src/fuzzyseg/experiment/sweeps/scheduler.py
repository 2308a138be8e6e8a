"""The runs of a sweep, each in a process of its own: one that dies takes nothing with it, one cut off goes on."""

from __future__ import annotations

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

from fuzzyseg.config import ConfigError, dump_yaml
from fuzzyseg.data.io.pillow import counted
from fuzzyseg.experiment.load_run import run_config
from fuzzyseg.experiment.plugins import imported_files
from fuzzyseg.experiment.prepare_data import fingerprint, read_configured
from fuzzyseg.experiment.sweeps.grid import Cell, Grid, differences, identity
from fuzzyseg.experiment.sweeps.rows import origin_differences, read_row, row_of, same_runs
from fuzzyseg.experiment.sweeps.tables import miou, tables
from fuzzyseg.run.environment import code_version
from fuzzyseg.run.files import write_text
from fuzzyseg.run.folder import RunFolder
from fuzzyseg.run.logs import read_lines

POLL = 0.5
"""Seconds between two looks at the running processes."""

Say = Callable[[str], None]
Watch = Callable[[dict[str, tuple[int, int]], int, int], None]
"""Is told, now and then, the steps (done, total) of what is running, and how many runs are done of how many."""


@dataclass
class SweepResult:
    """What a sweep ended with: the rows of finished cells, the reasons of failed ones, whether it was interrupted."""

    rows: dict[Cell, dict[str, Any]]
    failed: dict[Cell, str]
    interrupted: bool
    table: str


@dataclass
class _Running:
    cell: Cell
    process: subprocess.Popen[bytes]
    begun: float
    logged: int
    """Bytes that its log had before, of earlier attempts."""


@dataclass
class _Sweep:
    grid: Grid
    out: Path
    results: Path
    jobs: int
    discard: bool
    made_from: dict[str, str | None]
    """Fingerprints of the data set and the code, with which rows must agree; None: any."""
    say: Say
    rows: dict[Cell, dict[str, Any]] = field(default_factory=dict)
    failed: dict[Cell, str] = field(default_factory=dict)
    running: list[_Running] = field(default_factory=list)
    waiting: list[Cell] = field(default_factory=list)
    made: int = 0


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
    """Runs the cells of a grid that have no row yet, `jobs` at a time, and tabulates all rows.

    out: folder of the runs; in it table.md is kept up to date. results: folder of the rows, one small JSON a run; a
    cell whose row stands there is not run again (out/rows by default), nor one whose settings are those of any other
    row there: an arm of another sweep, say. discard: delete a run's folder once its row is written. any_code: accept
    rows and starts of another version of the code. A cell that was cut off is resumed; one that failed is told, left
    out of the table and tried again by the next call. SIGINT and SIGTERM stop the runs, which save. Raises ConfigError
    where a row, or a start in `out` that would be gone on from, has other settings or was made from other data or code.
    """
    out = Path(out).resolve()
    made_from = {} if only_table else _made_from(grid, out, any_code=any_code)
    state = _Sweep(grid, out, Path(results).resolve() if results else out / "rows", jobs, discard, made_from, say)
    for cell in grid.cells:
        row = read_row(state.results / f"{cell.name}.json")
        if row is not None:
            _check(state, cell, row)
            state.rows[cell] = row
    missing = [cell for cell in grid.cells if cell not in state.rows]
    state.rows |= same_runs(missing, [identity(grid.config(cell, out)) for cell in missing], state.results, made_from)
    if only_table:
        return SweepResult(state.rows, {}, False, tables(grid, state.rows))
    state.waiting = [cell for cell in grid.cells if cell not in state.rows]
    starts = dict.fromkeys(start for cell in state.waiting for start in grid.starts(cell))
    for start in starts:
        _check_start(state, start)
    first = [start for start in starts if not _finished(out, start)]
    before = (
        f", and before them {counted(len(first), 'start')} of {grid.config(first[0], out).train.steps} steps"
        if first
        else ""
    )
    runs, made = counted(len(grid.cells), "run"), len(state.rows)
    say(f"{runs}: {made} stand in {state.results}, {len(state.waiting)} to make{before}")
    state.waiting = first + state.waiting
    out.mkdir(parents=True, exist_ok=True)
    state.results.mkdir(parents=True, exist_ok=True)
    interrupted = _run_all(state, watch)
    text = tables(grid, state.rows, state.failed)
    write_text(out / "table.md", text)
    return SweepResult(state.rows, state.failed, interrupted, text)


def _made_from(grid: Grid, out: Path, *, any_code: bool) -> dict[str, str | None]:
    """Fingerprints of the data set of the first cell and of the code. Raises DataError, ConfigError."""
    data = grid.config(grid.cells[0], out).data
    found = None if data.root is None else fingerprint(read_configured(data))
    return {"data": found, "code": None if any_code else code_version()["sources"]}


def _check(state: _Sweep, cell: Cell, row: dict[str, Any]) -> None:
    path = state.results / f"{cell.name}.json"
    found = differences(row["settings"], identity(state.grid.config(cell, state.out)))
    if found:
        raise ConfigError(
            f"{path}: was made with other settings ({'; '.join(found[:4])}): give the same, choose another --results, "
            "or delete the file"
        )
    _check_origin(state, path, row)


def _check_origin(state: _Sweep, path: Path, recorded: dict[str, Any]) -> None:
    found = origin_differences(recorded, state.made_from)
    if found:
        code = "" if "data " in found[0] else "; --any-code accepts what another version of fuzzyseg made"
        raise ConfigError(
            f"{path}: was made from other data or code ({'; '.join(found)}): choose another --out and --results, or "
            f"delete it{code}"
        )


def _check_start(state: _Sweep, start: Cell) -> None:
    """A start is told by the settings in its folder, which hold files as absolute paths: these are not compared."""
    made = run_config(state.out / start.name)
    if made is None or not _finished(state.out, start):  # the training itself refuses to resume another
        return
    now = identity(state.grid.config(start, state.out))
    before = {key: now.get(key) if _has_paths(value) else value for key, value in identity(made).items()}
    found = differences(before, now)
    if found:
        raise ConfigError(
            f"{state.out / start.name}: is a start that was made with other settings ({'; '.join(found[:4])}): give "
            "the same, choose another --out, or delete the folder"
        )
    run = RunFolder(state.out / start.name)
    split, environment = (json.loads(path.read_text(encoding="utf-8")) for path in (run.split, run.environment))
    _check_origin(state, run.path, {"data": split.get("data"), "code": environment.get("code")})


def _has_paths(value: object) -> bool:
    return any(
        isinstance(each, str) and os.path.isabs(each) for each in (value if isinstance(value, list) else [value])
    )


def _finished(out: Path, cell: Cell) -> bool:
    return RunFolder(out / cell.name).result.is_file()


def _run_all(state: _Sweep, watch: Watch | None) -> bool:
    """Keeps `jobs` processes going until nothing can be started any more. Returns whether it was interrupted."""
    total = len(state.waiting)
    try:
        with _terminated_as_interrupted():
            while state.running or _next(state) is not None:
                while len(state.running) < state.jobs and (cell := _next(state)) is not None:
                    _begin(state, cell, total)
                time.sleep(POLL)
                for each in [each for each in state.running if each.process.poll() is not None]:
                    state.running.remove(each)
                    _end(state, each)
                if watch is not None:
                    watch({each.cell.name: _steps(state, each.cell) for each in state.running}, state.made, total)
    except KeyboardInterrupt:
        state.say("interrupted: the runs save; the same command goes on")
        return True
    finally:  # interrupted, or an error of our own: no run goes on by itself
        for each in state.running:
            each.process.terminate()  # not SIGINT, which a child of a background job ignores
        for each in state.running:
            each.process.wait()
    for cell in state.waiting:  # what they start from is not there
        state.failed[cell] = "its start failed"
    return False


def _next(state: _Sweep) -> Cell | None:
    """The first waiting cell whose starts are there."""
    ready = (c for c in state.waiting if all(_finished(state.out, start) for start in state.grid.starts(c)))
    return next(ready, None)


def _begin(state: _Sweep, cell: Cell, total: int) -> None:
    state.waiting.remove(cell)
    config = state.grid.config(cell, state.out)
    run = state.out / cell.name
    run.mkdir(parents=True, exist_ok=True)
    recipe = state.out / f"{cell.name}.yaml"
    write_text(recipe, dump_yaml(config))
    environment = dict(os.environ)
    imports = [word for file in imported_files() for word in ("--import", file)]
    if state.jobs > 1:  # threads that wait for each other make small steps many times slower
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // state.jobs)))
    with (state.out / f"{cell.name}.log").open("ab") as log:
        logged = log.tell()
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "fuzzyseg", "train", str(recipe), "--resume", *imports],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches it through us, once
        )
    state.running.append(_Running(cell, process, time.monotonic(), logged))
    state.say(f"[{state.made + len(state.running)}/{total}] {cell.name}: begun, log in {state.out / cell.name}.log")


def _end(state: _Sweep, each: _Running) -> None:
    cell, code = each.cell, each.process.returncode
    state.made += 1
    seconds = time.monotonic() - each.begun
    if code != 0 or not _finished(state.out, cell):
        state.failed[cell] = _last_words(state.out / f"{cell.name}.log", each.logged, code)
        state.say(f"{cell.name}: failed after {seconds:.0f} s: {state.failed[cell]}")
        return
    if cell.is_start:
        state.say(f"{cell.name}: done in {seconds:.0f} s")
        return
    row = row_of(state.grid, cell, state.out)
    if row["result"]["last"] is None:
        state.failed[cell] = "ended without a score: there are no validation images with masks (data.val)"
        state.say(f"{cell.name}: {state.failed[cell]}")
        return
    write_text(state.results / f"{cell.name}.json", json.dumps(row, indent=1, ensure_ascii=False) + "\n")
    state.rows[cell] = row
    write_text(state.out / "table.md", tables(state.grid, state.rows, state.failed))
    if state.discard:
        shutil.rmtree(state.out / cell.name)
    state.say(f"{cell.name}: done in {seconds:.0f} s, mIoU {miou(row):.2f} %")


def _last_words(log: Path, begun: int, code: int) -> str:
    """What a failed run said last; its log begins at the byte `begun`."""
    text = log.read_bytes()[begun:].decode("utf-8", errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    told = (errors or lines or [""])[-1]
    died = f" (killed by signal {-code}; is memory short?)" if code < 0 else f" (exit code {code})"
    return told + died


def _steps(state: _Sweep, cell: Cell) -> tuple[int, int]:
    metrics = RunFolder(state.out / cell.name).metrics
    lines = read_lines(metrics) if metrics.is_file() else []
    return (lines[-1]["step"] if lines else 0), state.grid.config(cell, state.out).train.steps


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt within it, so that a scheduler's notice saves the runs too."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
