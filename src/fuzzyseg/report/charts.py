"""Charts of K over training, and of entropy and weight by K (Fig. 4 of the FPL paper)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fuzzyseg.report.drawing import SERIES, figure, per_cent
from fuzzyseg.report.maps import K_COLOURS

Row = Mapping[str, Any]

_LINES = ("#4d4d4d", "#c7a800", "#3f9e44", *K_COLOURS[3:])
"""Colours of K = 1, 2, ..., as in the maps but dark enough for lines."""


def draw_k_over_time(path: Path, steps: Sequence[int], histograms: Sequence[Sequence[float]], *, title: str) -> Path:
    """Draw Fig. 4a: fraction of pixels with each K by step, K = 1 on a linear and the others on a logarithmic axis."""
    largest = min(len(_LINES), max(len(row) for row in histograms))
    with figure(path, 1, 2, 8.4, 3.2, title=title) as (_, axes):
        window = max(1, len(steps) // 30)
        for k in range(1, largest + 1):
            values = [sum(row[k - 1 :]) if k == len(_LINES) else row[k - 1] for row in histograms]
            if not any(values):
                continue
            label = f"K = {k}" if k < len(_LINES) else f"K >= {k}"
            curve = smooth(values, window)
            ax = axes[0, 0] if k == 1 else axes[0, 1]
            ax.plot(steps, values, color=_LINES[k - 1], alpha=0.22, linewidth=0.8)
            ax.plot(steps, curve, color=_LINES[k - 1], linewidth=1.8, label=label)
        axes[0, 0].set(title="one positive class (K = 1)", xlabel="step", ylabel="share of the pixels")
        axes[0, 1].set(title="several (logarithmic)", xlabel="step", ylabel="share of the pixels")
        axes[0, 1].set_yscale("log")
        axes[0, 1].set_ylim(bottom=1e-4)
        per_cent(axes[0, 0].yaxis)
        per_cent(axes[0, 1].yaxis)
        if axes[0, 1].lines:  # with two classes K is 1 everywhere
            axes[0, 1].legend(ncols=3)
    return path


def smooth(values: Sequence[float], window: int) -> list[float]:
    """Return the moving average over up to `window` neighbours on each side."""
    parts = [values[max(0, place - window) : place + window + 1] for place in range(len(values))]
    return [sum(part) / len(part) for part in parts]


def draw_entropy(path: Path, by_k: Sequence[Row], *, title: str) -> Path:
    """Draw the histogram and mean of the entropy by K, and the fraction of pixels with each K."""
    with figure(path, 1, 2, 8.4, 3.0, gridspec_kw={"width_ratios": [1.25, 1]}, title=title) as (fig, axes):
        left, right = axes[0]
        bins, sizes = len(by_k[0]["entropies"]), [row["k"] for row in by_k]
        values = [[row["entropies"][place] for row in by_k] for place in range(bins)]
        places = list(range(len(by_k)))
        edges = [place - 0.5 for place in range(len(by_k) + 1)], [place / bins for place in range(bins + 1)]
        image = left.pcolormesh(*edges, values, cmap="Blues", vmin=0)
        left.plot(places, [row["entropy"] for row in by_k], "o-", color="#d55e00", markersize=4, label="mean")
        left.set_xticks(places, sizes)
        left.legend(loc="lower right")
        left.grid(visible=False)
        left.set(title="entropy of the pixels with each K", xlabel="K", ylabel="entropy / log C")
        fig.colorbar(image, ax=left, label="share of the pixels of that K", format=lambda v, p: f"{100 * v:.0f}%")
        right.bar(places, [row["share"] for row in by_k], color="#0072b2")
        for place, row in enumerate(by_k):
            right.text(place, row["share"], f"{100 * row['share']:.2g}%", ha="center", va="bottom", fontsize=7)
        right.set_yscale("log")
        right.set_ylim(top=3)
        right.set_xticks(places, sizes)
        per_cent(right.yaxis)
        right.set(title="pixels with each K", xlabel="K", ylabel="share of the pixels (logarithmic)")
    return path


def draw_weights(
    path: Path,
    q: Sequence[float],
    curves: Mapping[str, Sequence[float]],
    *,
    m: float,
    k: int,
    threshold: float,
    possible: tuple[float, float],
    by_k: Sequence[Row],
    title: str = "",
) -> Path:
    """Draw Fig. 4b: the weight as a function of q, with impossible q shaded, and a histogram of the weights by K."""
    with figure(path, 1, 2, 8.4, 3.2, title=title) as (_, axes):
        left, right = axes[0]
        for (name, values), colour in zip(curves.items(), SERIES, strict=False):
            left.plot(q, values, color=colour, label=name, linewidth=1.8)
        low, high = possible
        for start, end in ((0, low), (high, m)):
            if end > start:
                left.axvspan(start, end, color="#d9d9d9", alpha=0.6, linewidth=0, zorder=0)
        left.text((high + m) / 2, 0.97, "cannot occur", ha="center", va="top", color="#555555", fontsize=8)
        left.set_xlim(0, m)
        left.set_ylim(0, 1.02)
        left.legend(loc="lower left")
        curves_of = f"curves for T = {threshold:g}, K = {k}, m = {m:g}"
        left.set(title=curves_of, xlabel="q, probability of the best negative", ylabel="weight")
        for row in by_k[: len(_LINES)]:
            bins = len(row["weights"])
            middle = [(place + 0.5) / bins for place in range(bins)]
            right.plot(middle, row["weights"], color=_LINES[min(row["k"], len(_LINES)) - 1], label=f"K = {row['k']}")
        right.set_yscale("symlog", linthresh=0.05)
        right.set_ylim(bottom=0)
        right.set_yticks([0, 0.01, 0.05, 0.1, 0.25, 0.5, 1])
        per_cent(right.yaxis)
        right.legend(ncols=2)
        right.set(title="weights that occur", xlabel="weight", ylabel="share of the pixels of that K")
    return path


def draw_training(
    path: Path, steps: Sequence[int], series: Mapping[str, Mapping[str, Sequence[float | None]]], *, title: str
) -> Path:
    """Draw curves over the evaluations, one chart per group of series; None leaves a gap."""
    with figure(path, 1, len(series), 4.2 * len(series), 3.2, title=title) as (_, axes):
        for ax, (name, curves) in zip(axes[0], series.items(), strict=True):
            for (label, values), colour in zip(curves.items(), SERIES, strict=False):
                numbers = [float("nan") if value is None else value for value in values]
                ax.plot(steps, numbers, "o-", markersize=3, color=colour, label=label)
            if "score" in name:
                ax.set_ylim(-1.05, 1.9)
                ax.set_yticks([-1, -0.5, 0, 0.5, 1])
                ax.legend(fontsize=7, ncols=2, loc="upper center")
            else:
                ax.legend(fontsize=7.5)
                per_cent(ax.yaxis)
            ax.set(title=name, xlabel="step", ylabel="")
    return path
