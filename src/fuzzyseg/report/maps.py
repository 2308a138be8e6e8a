"""Figures with rows of images and maps: labels, fuzzy sets, K, cases, scores (Fig. 1, 3a and 5 of the FPL paper)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fuzzyseg.report.drawing import CASE_NAMES, CASES, figure

Kind = Literal["picture", "score", "k", "case"]

MAX_K = 6
"""All K from this value on share one colour."""

K_COLOURS = ("#f2f2f2", "#fde725", "#5ec962", "#21918c", "#3b528b", "#440154")
"""Colours of K = 1, 2, ...: darker for larger K (viridis: ordered in greyscale and for colour-blind readers)."""

VOID_COLOUR = "#ffffff"

POINTS, LETTER = 7, 0.65
"""Font size of the row labels, and the width of a wide letter as a fraction of it."""


@dataclass
class Panel:
    """One image of a row. values: (H,W,3) for a picture, otherwise a map (H,W) in which NaN or 0 is void."""

    title: str
    values: Any
    kind: Kind = "picture"


def draw_rows(
    path: Path,
    rows: Sequence[Sequence[Panel]],
    *,
    title: str,
    names: Sequence[str] = (),
    legend: Sequence[tuple[str, Any]] = (),
) -> Path:
    """Draw one row of panels per example, titled above the first. names: row labels. legend: (label, colour) pairs."""
    height, width = rows[0][0].values.shape[:2]
    columns, cell = len(rows[0]), 2.3
    keys = [key for key in ("score", "k", "case") if any(panel.kind == key for row in rows for panel in row)]
    lines = -(-len(legend) // 7) + ("case" in keys) + ("k" in keys)
    tall = len(rows) * (cell * height / width + 0.06) + 0.65 + 0.24 * lines + (0.55 if "score" in keys else 0)
    with figure(path, len(rows), columns, columns * cell + 0.2, tall, title=title) as (fig, axes):
        shown: dict[str, Any] = {}
        for number, row in enumerate(rows):
            for place, panel in enumerate(row):
                ax = axes[number, place]
                shown[panel.kind] = _show(ax, panel)
                ax.set(xticks=[], yticks=[])
                ax.grid(visible=False)
                ax.spines[:].set_visible(False)
                if number == 0:
                    ax.set_title(panel.title, fontsize=9, loc="center")
            if names:
                axes[number, 0].set_ylabel(fitted(names[number], cell * height / width), fontsize=POINTS)
        if "score" in shown:
            layout: dict[str, Any] = {"location": "bottom", "shrink": 0.5, "aspect": 50, "pad": 0.02}
            bar = fig.colorbar(shown["score"], ax=axes.ravel().tolist(), ticks=[-1, -0.5, 0, 0.5, 1], **layout)
            label = "positive gradient score R: below 0 the loss lowers the true class, above 0 it raises it"
            bar.set_label(label, fontsize=8)
        entries = [_key(colour, name) for name, colour in legend] + _keys(keys, rows)
        if entries:
            fig.legend(handles=entries, loc="outside lower center", ncols=min(7, len(entries)), fontsize=7.5)
    return path


def fitted(name: str, height: float) -> str:
    """Wrap a name to at most three lines that fit a row of `height` inches, eliding the middle of longer names."""
    letters = max(4, int(72 * height / (LETTER * POINTS)))
    if len(name) > 3 * letters:
        name = f"{name[: letters - 3]}...{name[-2 * letters :]}"
    return "\n".join(name[start : start + letters] for start in range(0, len(name), letters))


def _show(ax: Any, panel: Panel) -> Any:
    if panel.kind == "score":
        ax.set_facecolor("#8c8c8c")  # void
        return ax.imshow(panel.values, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
    if panel.kind == "picture":
        return ax.imshow(panel.values, interpolation="nearest")
    from matplotlib.colors import BoundaryNorm, ListedColormap

    colours = K_COLOURS if panel.kind == "k" else tuple(CASES.values())
    norm = BoundaryNorm([place + 0.5 for place in range(-1, len(colours) + 1)], len(colours) + 1)
    shades = ListedColormap([VOID_COLOUR, *colours])
    values = panel.values.clip(0, len(colours))
    return ax.imshow(values, cmap=shades, norm=norm, interpolation="nearest")


def _key(colour: Any, label: str) -> Any:
    from matplotlib.patches import Patch

    return Patch(facecolor=colour, edgecolor="#999999", linewidth=0.4, label=label)


def _keys(kinds: Sequence[str], rows: Sequence[Sequence[Panel]]) -> list[Any]:
    """Return the legend entries of K, up to the largest that occurs, and of the cases."""
    entries = []
    if "k" in kinds:
        largest = max(int(panel.values.max()) for row in rows for panel in row if panel.kind == "k")
        for place, colour in enumerate(K_COLOURS[:largest], start=1):
            last = place == MAX_K and largest > MAX_K
            entries.append(_key(colour, f"K {'>' if last else ''}= {place}"))
    return entries + ([_key(CASES[case], name) for case, name in CASE_NAMES.items()] if "case" in kinds else [])
