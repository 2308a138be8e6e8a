"""What all figures share: size, colours, how they are stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

HARD, FUZZY = "#56606b", "#0072b2"
"""Of the two losses that are compared."""

CASES = {1: "#c9ced4", 2: "#009e73", 3: "#d55e00"}
"""Of the three cases: grey, green, vermilion, which stay apart for colour-blind eyes (Okabe and Ito)."""

CASE_NAMES = {1: "case 1: label right", 2: "case 2: label wrong, truth in the set", 3: "case 3: truth outside the set"}

SERIES = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#000000", "#f0e442")
"""Okabe and Ito's colours for lines."""

_STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e3e6e9",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.hashsalt": "fuzzyseg",
    "svg.fonttype": "none",
}


def style() -> Any:
    """The context in which a figure is made and stored."""
    return rc_context(_STYLE)  # type: ignore[arg-type]


def figure(rows: int, columns: int, width: float, height: float, **options: Any) -> tuple[Figure, Any]:
    """A figure of this size in inches, and its axes as an array (rows, columns)."""
    made = Figure(figsize=(width, height), layout="constrained")
    return made, made.subplots(rows, columns, squeeze=False, **options)


def store(made: Figure, path: Path) -> Path:
    """Writes the figure in the format of the suffix, without the date, so that equal numbers give equal files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
    made.savefig(path, dpi=110, metadata=metadata)
    return path


def per_cent(axis: Any) -> None:
    """Ticks of a share as per cent. To be called after the scale is set."""
    axis.set_major_formatter(lambda value, place: f"{100 * value:.4g} %")


def finish(axes: Axes, *, title: str, x: str, y: str) -> None:
    """Title and labels."""
    axes.set_title(title, loc="left")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
