"""Common size, style and saving of figures. matplotlib (extra [plots]) is imported when a figure is drawn."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HARD, FUZZY = "#56606b", "#0072b2"
"""Colours of the two losses compared."""

CASES = {1: "#c9ced4", 2: "#009e73", 3: "#d55e00"}
"""Colours of the three cases: grey, green, vermilion (Okabe and Ito, colour-blind safe)."""

CASE_NAMES = {1: "case 1: label right", 2: "case 2: label wrong, truth in the set", 3: "case 3: truth outside the set"}

SERIES = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#000000", "#f0e442")
"""Okabe and Ito's colours for lines."""

_STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
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


def require_matplotlib() -> None:
    """Raise ValueError naming the extra if matplotlib is not installed."""
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError:
        raise ValueError("figures need matplotlib, which is not installed: pip install 'fuzzyseg[plots]'") from None


@contextmanager
def figure(
    path: Path, rows: int, columns: int, width: float, height: float, *, title: str = "", **options: Any
) -> Iterator[tuple[Any, Any]]:
    """Yield a figure of `width` x `height` inches and its axes (rows, columns); save it to `path` on exit.

    The suffix of `path` determines the format. Files contain no date, so equal numbers give equal files.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_STYLE):  # type: ignore[arg-type]
        fig = Figure(figsize=(width, height), layout="constrained")
        yield fig, fig.subplots(rows, columns, squeeze=False, **options)
        if title:
            fig.suptitle(title, fontsize=10, x=0.01, ha="left")
        path.parent.mkdir(parents=True, exist_ok=True)
        metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
        part = path.with_name(f".{path.stem}.part{path.suffix}")
        try:
            fig.savefig(part, dpi=110, metadata=metadata)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def per_cent(axis: Any) -> None:
    """Format ticks that are fractions as percentages. Call this after setting the scale."""
    axis.set_major_formatter(lambda value, place: f"{100 * value:.4g}%")
