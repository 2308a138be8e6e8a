"""The option `--import`: methods, losses, data sets and metrics from Python files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def _load(files: list[Path] | None) -> list[Path] | None:
    """Import the files, before the command runs."""
    if files:
        from fuzzyseg.plugins import import_file

        for file in files:
            import_file(file)
    return files


Import = Annotated[
    list[Path] | None,
    typer.Option(
        "--import",
        metavar="FILE.py",
        callback=_load,
        help="Python file with METHODS, LOSSES, DATASETS or METRICS by name; may be given several times.",
    ),
]
