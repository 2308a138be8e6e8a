"""Checks before the first run of a sweep: data, splits, existing results and supervised pretraining."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fuzzyseg.config import ConfigError, DataConfig
from fuzzyseg.data.text import counted
from fuzzyseg.experiment.load_run import run_config
from fuzzyseg.experiment.prepare_data import read_configured, split_for
from fuzzyseg.experiment.sweeps.grid import Cell, Grid
from fuzzyseg.experiment.sweeps.rows import differences, identity, origin_differences
from fuzzyseg.run.environment import code_version
from fuzzyseg.run.folder import RunFolder

SPLIT = {"labelled", "val", "split_seed", "policy", "unlabelled", "group"}
"""Settings in the section `data` that affect the split but not how the dataset is read."""


def origin(grid: Grid, out: Path, say: Callable[[str], None], *, any_code: bool) -> dict[str, str | None]:
    """Return fingerprints of the first run's dataset and of the code; None for those not to be compared.

    Reports which validation images a cross-validation does not use. Raises ConfigError, and DataError if the images of
    a run cannot be split.
    """
    first = grid.config(grid.cells[0], out).data
    code = None if any_code else code_version()["sources"]
    if first.root is None:
        return {"data": None, "code": code}
    dataset = read_configured(first)
    tried: list[DataConfig] = []
    for cell in grid.cells:
        data = grid.config(cell, out).data.model_copy(update={"policy": "random", "split_seed": 0})  # reads no masks
        if data not in tried and data.model_dump(exclude=SPLIT) == first.model_dump(exclude=SPLIT):
            tried.append(data)
            split_for(data, 0, dataset)
    if grid.folds is not None:
        unused = [f"data.val={val}" for val in grid.replaced_val]
        unused += [f"the {counted(len(dataset.val), 'image')} of the val folder"] if dataset.val else []
        if unused:
            say(f"--folds: the validation folds are parts of the labelled images; not used: {', '.join(unused)}")
    return {"data": dataset.fingerprint, "code": code}


def refuse(path: Path, kind: str, changed: list[str], recorded: dict[str, Any], made_from: dict[str, Any]) -> None:
    """Raise ConfigError if a result or pretraining comes from different settings, data or code."""
    advice = "choose another --out or --results, or delete the file or folder"
    if changed:
        raise ConfigError(f"{path}: {kind} has other settings ({'; '.join(changed[:4])}): restore them, {advice}")
    if changes := origin_differences(recorded, made_from):
        code = "" if "data " in changes[0] else "; --any-code accepts results of other versions of fuzzyseg"
        raise ConfigError(f"{path}: {kind} was made from other data or code ({'; '.join(changes)}): {advice}{code}")


def check_start(grid: Grid, out: Path, start: Cell, made_from: dict[str, str | None]) -> None:
    """Raise ConfigError if finished pretraining used different settings, data or code.

    Unfinished pretraining is checked when it is resumed.
    """
    run = RunFolder(out / start.name)
    recorded_config = run_config(run.path)
    if recorded_config is None or not finished(out, start):
        return
    after = identity(grid.config(start, out))
    # the folder's settings contain absolute paths, which are not compared
    before = identity(recorded_config)
    for key, value in before.items():
        parts = value if isinstance(value, list) else [value]
        if any(isinstance(part, str) and os.path.isabs(part) for part in parts):
            before[key] = after.get(key)
    split, environment = (run.read(path) for path in (run.split, run.environment))
    recorded = {"data": split.get("data"), "code": environment.get("code")}
    refuse(run.path, "supervised pretraining", differences(before, after), recorded, made_from)


def finished(out: Path, cell: Cell) -> bool:
    """Return whether a run has a result."""
    return RunFolder(out / cell.name).result.is_file()
