"""Custom methods, losses, datasets and metrics from entry points and imported Python files."""

import importlib.util
import logging
import sys
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor

from fuzzyseg.config import ConfigError
from fuzzyseg.losses import PIXEL_LOSSES, PixelFunction
from fuzzyseg.methods import METHODS, Method

logger = logging.getLogger(__name__)

Metric = Callable[[Tensor], float]
"""Maps a confusion matrix (C,C) float64 (rows: truth, columns: prediction) to a score. Higher is better."""

GROUPS = {"METHODS": "fuzzyseg.methods", "LOSSES": "fuzzyseg.losses", "DATASETS": "fuzzyseg.datasets"}
"""Entry-point group for each dictionary name in an imported file."""

_modules: dict[Path, ModuleType] = {}


def import_file(path: str | Path) -> None:
    """Execute a Python file and register the entries of its dictionaries METHODS, LOSSES, DATASETS and METRICS.

    METHODS maps names to `Method` classes, LOSSES to pixel-loss functions, DATASETS to functions without arguments that
    return a dataset (see `write_dataset`), and METRICS to `Metric` functions, the first of which selects the best
    checkpoint.

    Raises ConfigError if the file does not exist, defines none of these dictionaries, or reuses the name of a built-in.
    """
    path = Path(path).resolve()
    if path in _modules:
        return
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ConfigError(f"--import: found {path}; expected an existing Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)  # pydantic and pickle look up classes by module
    spec.loader.exec_module(module)
    tables = {key: table for key in (*GROUPS, "METRICS") if isinstance(table := getattr(module, key, None), Mapping)}
    if not tables:
        raise ConfigError(f"--import: {path} defines no dictionary METHODS, LOSSES, DATASETS or METRICS")
    for key, builtin in (("METHODS", METHODS), ("LOSSES", PIXEL_LOSSES)):
        if duplicates := sorted(builtin.keys() & tables.get(key, {}).keys()):
            raise ConfigError(f"--import: {path} defines {key}[{duplicates[0]!r}], a built-in name; rename it")
    _modules[path] = module


def imported_files() -> list[str]:
    """Return the paths of all imported files, so that child processes can import them too."""
    return [str(path) for path in _modules]


def methods() -> dict[str, type[Method]]:
    """Return all method classes, built-in and custom, by name."""
    return {**METHODS, **_outside("METHODS", METHODS)}


def losses() -> dict[str, PixelFunction]:
    """Return all pixel-loss functions, built-in and custom, by name."""
    return {**PIXEL_LOSSES, **_outside("LOSSES", PIXEL_LOSSES)}


def datasets() -> dict[str, Callable[[], Any]]:
    """Return the functions that create custom datasets, by name."""
    return _outside("DATASETS", {})


def metrics() -> dict[str, Metric]:
    """Return custom metrics by name, in import order."""
    return {name: metric for module in _modules.values() for name, metric in getattr(module, "METRICS", {}).items()}


def _outside(table: str, builtin: Mapping[str, Any]) -> dict[str, Any]:
    plugins = {name: value for name, value in _installed(GROUPS[table]).items() if name not in builtin}
    for module in _modules.values():
        plugins |= getattr(module, table, {})
    return plugins


@cache
def _installed(group: str) -> dict[str, Any]:
    """Load a group's entry points, by name. Entry points that fail to load are skipped with a warning."""
    plugins = {}
    for point in entry_points(group=group):
        try:
            plugins[point.name] = point.load()
        except Exception as error:
            logger.warning("entry point %s of group %s is ignored: %s: %s", point, group, type(error).__name__, error)
    return plugins
