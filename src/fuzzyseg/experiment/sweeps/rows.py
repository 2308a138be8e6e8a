"""A row: what is kept of a finished run, small enough to be committed. It names no folder of the machine."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fuzzyseg.config import ConfigError
from fuzzyseg.experiment.sweeps.grid import Cell, Grid, identity
from fuzzyseg.networks import network_file
from fuzzyseg.run.folder import RunFolder
from fuzzyseg.run.logs import SCORE, read_lines


def read_row(path: Path) -> dict[str, Any] | None:
    """A row's content; None where there is no such file. Raises ConfigError where the file is no row."""
    if not path.is_file():
        return None
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
        dict(row["settings"]), float(row["result"]["last"][SCORE]), int(row["result"]["labelled"])
    except (ValueError, KeyError, TypeError):
        raise ConfigError(f"{path}: is no row of a sweep (a JSON object with settings and result); remove it") from None
    return dict(row)


def same_runs(
    cells: Sequence[Cell],
    settings: Sequence[Mapping[str, Any]],
    results: Path,
    made_from: Mapping[str, str | None] | None = None,
) -> dict[Cell, dict[str, Any]]:
    """The rows in `results` that were made with a cell's settings under another name: another sweep's arm, say.

    made_from: see `origin_differences`. Files that are no rows are passed over.
    """
    wanted = dict(zip(map(_key, settings), cells, strict=True))
    found = {}
    for path in sorted(results.glob("*.json")) if wanted else []:
        try:
            row = read_row(path)
        except ConfigError:
            continue
        if row is None or (cell := wanted.get(_key(row["settings"]))) is None:
            continue
        if not origin_differences(row, made_from or {}):
            found[cell] = row
    return found


def origin_differences(row: Mapping[str, Any], made_from: Mapping[str, str | None]) -> list[str]:
    """What a row was made from and `made_from` differ in, in words; what either does not record does not differ."""
    recorded = {"data": row.get("data"), "code": (row.get("code") or {}).get("sources")}
    return [
        f"{key} {recorded[key]} there, {value} here"
        for key, value in made_from.items()
        if value is not None and recorded[key] is not None and recorded[key] != value
    ]


def _fingerprint(path: Path) -> str:
    """Of a file's bytes: runs that went on from the same weights are told from those that did not."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _key(settings: Mapping[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True)


def row_of(grid: Grid, cell: Cell, out: Path) -> dict[str, Any]:
    """The row of a cell whose finished run lies below `out`."""
    run = RunFolder(out / cell.name)
    lines = read_lines(run.metrics)
    times = [line.get("time", {}) for line in lines]
    seconds = [time["seconds_per_step"] for time in times if time.get("seconds_per_step")]
    memory = [time["memory_mib"] for time in times if time.get("memory_mib")]
    config = grid.config(cell, out)
    environment = json.loads(run.environment.read_text(encoding="utf-8"))
    course = [
        {key: line.get(key) for key in ("step", "evaluation", "metrics")} for line in lines if line.get("evaluation")
    ]
    return {
        "sweep": grid.plan.title,
        "arm": cell.arm,
        "labelled": cell.labelled,
        "seed": cell.seed,
        "subset": cell.seed if cell.subset is None else cell.subset,
        "data": json.loads(run.split.read_text(encoding="utf-8")).get("data"),
        "code": environment["code"],
        "settings": identity(config),
        "starts": [_fingerprint(network_file(Path(path))) for path in config.init or []],
        "result": json.loads(run.result.read_text(encoding="utf-8")),
        "course": course,
        "seconds_per_step": round(statistics.median(seconds), 4) if seconds else None,
        "memory_mib": round(max(memory)) if memory else None,
        "hardware": environment["hardware"],
        "versions": environment["versions"],
    }
