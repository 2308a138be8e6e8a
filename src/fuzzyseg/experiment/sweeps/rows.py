"""Result files (rows) of finished runs: small enough to commit, without machine-specific paths."""

import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fuzzyseg.config import Config, ConfigError, merge, validate
from fuzzyseg.engine.checkpoint import leaves
from fuzzyseg.experiment.build import resolve
from fuzzyseg.experiment.results import WITHOUT_EFFECT
from fuzzyseg.experiment.sweeps.grid import Cell, Grid
from fuzzyseg.networks.weights import network_file
from fuzzyseg.run.files import fingerprint
from fuzzyseg.run.folder import RunFolder
from fuzzyseg.run.logs import SCORE, read_lines

MACHINE = WITHOUT_EFFECT | {"data.root", "augment.on_device", "init", "train.device", "train.save_every"}
"""Machine-dependent settings, omitted from result files."""


def identity(config: Config) -> dict[str, Any]:
    """Return the settings that determine a run, with dotted keys: all except those in `MACHINE`.

    All options of the method are included, to detect rows that predate a changed default.
    """
    values = merge(config.model_dump(mode="json"), {"method": resolve(config).options.model_dump(mode="json")})
    flat = {key: value for key, value in leaves(values) if key not in MACHINE}
    flat["network.weights"] = Path(str(flat["network.weights"])).name
    flat["started"] = len(config.init or [])
    return flat


def differences(row: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Describe the settings in which a row and a requested run differ.

    A setting missing from the row was added later; its default is assumed, except for `network.weights`.
    """
    default = identity(validate({"method": {"name": now["method.name"]}}))
    default["network.weights"] = now.get("network.weights")
    values = {key: (row.get(key, default.get(key)), now.get(key, default.get(key))) for key in sorted({*row, *now})}
    return [f"{key} was {old!r} and is now {new!r}" for key, (old, new) in values.items() if old != new]


def read_row(path: Path) -> dict[str, Any] | None:
    """Read a row; None if there is no such file. Raises ConfigError if the file is not a row."""
    if not path.is_file():
        return None
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
        dict(row["settings"]), float(row["result"]["last"][SCORE]), int(row["result"]["labelled"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise ConfigError(f"{path}: is not a result of a sweep (JSON with settings and result); remove it") from None
    return dict(row)


def same_runs(
    settings: Mapping[Cell, Mapping[str, Any]], results: Path, made_from: Mapping[str, str | None]
) -> dict[Cell, dict[str, Any]]:
    """Find rows in `results` with the same settings as a cell but a different name, such as those of another sweep.

    settings: `identity` of each cell. made_from: see `origin_differences`. Files that are not rows are ignored.
    """

    def key(values: Mapping[str, Any]) -> str:
        return json.dumps(values, sort_keys=True)

    cells = {key(values): cell for cell, values in settings.items()}
    rows = {}
    for path in sorted(results.glob("*.json")) if cells else []:
        try:
            row = read_row(path)
        except ConfigError:
            continue
        cell = None if row is None else cells.get(key(row["settings"]))
        if row is not None and cell is not None and not origin_differences(row, made_from):
            rows[cell] = row
    return rows


def origin_differences(row: Mapping[str, Any], made_from: Mapping[str, str | None]) -> list[str]:
    """Describe how a row's `data` and `code` fingerprints differ from `made_from`; missing ones count as equal."""
    recorded = {"data": row.get("data"), "code": (row.get("code") or {}).get("sources")}
    return [
        f"{key} was {recorded[key]} and is now {value}"
        for key, value in made_from.items()
        if value is not None and recorded[key] is not None and recorded[key] != value
    ]


def row_of(grid: Grid, cell: Cell, out: Path) -> dict[str, Any]:
    """Return the row of a finished run in `out`."""
    run, config = RunFolder(out / cell.name), grid.config(cell, out)
    lines = read_lines(run.metrics)
    times = [line.get("time", {}) for line in lines]
    scored = [line for line in lines if line.get("evaluation")]
    seconds = [time["seconds_per_step"] for time in times if time.get("seconds_per_step")]
    memory = [time["memory_mib"] for time in times if time.get("memory_mib")]
    environment, split, result = (run.read(path) for path in (run.environment, run.split, run.result))
    return {
        "sweep": grid.plan.title,
        "arm": cell.arm,
        "labelled": cell.labelled,
        "seed": cell.seed,
        "subset": cell.seed if cell.subset is None else cell.subset,
        "data": split.get("data"),
        "code": environment["code"],
        "settings": identity(config),
        "starts": [fingerprint(network_file(Path(path))) for path in config.init or []],
        "result": result,
        "course": [{key: line.get(key) for key in ("step", "evaluation", "metrics")} for line in scored],
        "seconds_per_step": round(statistics.median(seconds), 4) if seconds else None,
        "memory_mib": round(max(memory)) if memory else None,
        "hardware": environment["hardware"],
        "versions": environment["versions"],
    }
