"""Charts of the three cases, coverage, confusions and calibration (Fig. 3b of the FPL paper)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fuzzyseg.report.drawing import FUZZY, HARD, figure, per_cent
from fuzzyseg.report.maps import K_COLOURS

Row = Mapping[str, Any]

CASE_LINES = {1: "case 1:\nlabel right", 2: "case 2: wrong,\ntruth in the set", 3: "case 3: truth\noutside the set"}


def draw_cases(path: Path, cases: Mapping[str, Row], effect: Row, *, title: str) -> Path:
    """Draw Fig. 3b: for each case, the mean score of both losses, frequency, K, and gradient at the true class."""
    with figure(path, 2, 2, 8.4, 5.6, title=title) as (_, axes):
        places = [0, 1, 2]
        names = [f"case {case}\n{100 * row['share']:.1f}% of pixels" for case, row in cases.items()]
        _pairs(axes[0, 0], places, [row["score"] for row in cases.values()], "{:.2f}")
        axes[0, 0].set_ylim(-1.15, 1.3)
        axes[0, 0].set(title="positive gradient score R (Eq. 12)", xlabel="", ylabel="mean R")
        _pairs(axes[0, 1], places, [row["lift"] for row in cases.values()], "{:.2f}")
        axes[0, 1].set(title="-w dL/dz of the true class", xlabel="", ylabel="mean gradient")
        _pairs(axes[1, 0], [*places, 3], [*[row["effect"] for row in cases.values()], effect], "{:.3f}")
        axes[1, 0].set(title="the same, times the frequency of the case", xlabel="", ylabel="mean over all pixels")
        for ax in (axes[0, 0], axes[0, 1]):
            ax.set_xticks(places, names)
        axes[1, 0].set_xticks([*places, 3], ["case 1", "case 2", "case 3", "all"])
        _k_of_cases(axes[1, 1], cases)
        axes[0, 0].legend(loc="upper right")
    return path


def _k_of_cases(ax: Any, cases: Mapping[str, Row]) -> None:
    """Draw one bar per case, stacked by K."""
    last = len(K_COLOURS)
    for place, row in enumerate(cases.values()):
        bottom, shares = 0.0, list(row["k_histogram"])
        for k, share in enumerate([*shares[: last - 1], sum(shares[last - 1 :])], start=1):
            label = None if place else f"K = {k}" if k < last else f"K >= {k}"
            style = {"color": K_COLOURS[k - 1], "edgecolor": "#999999", "linewidth": 0.4, "label": label}
            ax.bar(place, share, bottom=bottom, **style)
            bottom += share
    per_cent(ax.yaxis)
    ax.set_xticks(range(len(cases)), [CASE_LINES[int(case)] for case in cases], fontsize=7.5)
    ax.set_xlim(-0.6, 3.4)
    ax.legend(loc="center right")
    ax.set(title="K of their pixels", xlabel="", ylabel="share of the case")


def _pairs(ax: Any, places: Sequence[int], values: Sequence[Row], shown: str) -> None:
    """Draw a bar for the hard and one for the fuzzy loss at each place, labelled with their values."""
    for shift, name, colour in ((-0.2, "hard", HARD), (0.2, "fuzzy", FUZZY)):
        heights = [row[name] for row in values]
        for place, height in zip(places, heights, strict=True):
            if height is not None:
                ax.bar(place + shift, height, 0.38, color=colour, label=name if place == places[0] else None)
                above = height >= 0
                align = {"ha": "center", "va": "bottom" if above else "top", "textcoords": "offset points"}
                where = {"xy": (place + shift, height), "xytext": (0, 2 if above else -2)}
                ax.annotate(shown.format(height), **where, **align, fontsize=7)
    ax.axhline(0, color="#333333", linewidth=0.8)
    ax.margins(y=0.18)


def draw_coverage(path: Path, by_k: Sequence[Row], table: Sequence[Row], *, title: str) -> Path:
    """Draw coverage against top-1 accuracy, by K and by threshold."""
    with figure(path, 1, 2, 8.4, 3.2, title=title) as (_, axes):
        left, right = axes[0]
        sides = ((-0.2, "top1", HARD, "truth is the label"), (0.2, "coverage", FUZZY, "truth in the fuzzy set"))
        for shift, name, colour, label in sides:
            places = [place + shift for place in range(len(by_k))]
            left.bar(places, [row[name] for row in by_k], 0.38, color=colour, label=label)
        left.set_xticks(range(len(by_k)), [row["k"] for row in by_k])
        left.set_ylim(0, 1.25)
        left.set_yticks([0, 0.25, 0.5, 0.75, 1])
        per_cent(left.yaxis)
        left.legend(ncols=2, loc="upper center")
        left.set(title="by K", xlabel="K", ylabel="share of the pixels of that K")
        t = [row["threshold"] for row in table]
        right.plot(t, [row["coverage"] for row in table], "o-", color=FUZZY, label="truth in the fuzzy set")
        right.plot(t, [row["top1"] for row in table], "--", color=HARD, label="truth is the label")
        right.plot(t, [1 - row["k_histogram"][0] for row in table], "s-", color="#e69f00", label="K > 1")
        right.plot(t, [row["torn"] for row in table], "^-", color="#cc79a7", label="p1 <= T < p1 + p2")
        right.set_ylim(0, 1.02)
        per_cent(right.yaxis)
        right.legend(fontsize=7.5)
        right.set(title="by threshold", xlabel="T", ylabel="share of the pixels")
    return path


def draw_confusions(path: Path, pairs: Sequence[Row], *, title: str) -> Path:
    """Draw the class pairs with the most wrong labels, and the fraction of these pixels with the truth in the set."""
    with figure(path, 1, 1, 6.6, 0.9 + 0.26 * len(pairs)) as (_, axes):
        ax = axes[0, 0]
        places = list(range(len(pairs)))[::-1]
        wrong = [row["share"] for row in pairs]
        ax.barh(places, wrong, color="#d9dde1", label="wrong label")
        rescued = [row["share"] * row["rescued"] for row in pairs]
        ax.barh(places, rescued, color="#009e73", label="of these, truth in the fuzzy set")
        for place, row in zip(places, pairs, strict=True):
            ax.text(row["share"], place, f" {100 * row['rescued']:.0f}%", va="center", fontsize=7.5)
        ax.set_yticks(places, [f"{row['truth']} mistaken for {row['label']}" for row in pairs], fontsize=8)
        ax.grid(visible=False, axis="y")
        per_cent(ax.xaxis)
        ax.legend(loc="lower right")
        ax.set(title=title, xlabel="share of all pixels", ylabel="")
    return path


def draw_calibration(path: Path, reliability: Sequence[Row], error: float, *, title: str) -> Path:
    """Draw a reliability diagram (accuracy against confidence) and the fraction of the pixels in each bin."""
    mark: dict[str, Any] = {"color": "#d55e00", "markersize": 9, "markeredgewidth": 2, "linestyle": "none"}
    with figure(path, 2, 1, 4.4, 4.6, sharex=True, gridspec_kw={"height_ratios": [3, 1]}) as (_, axes):
        above, below = axes[:, 0]
        bars: dict[str, Any] = {"width": 1 / len(reliability), "align": "edge", "edgecolor": "white"}
        for row in reliability:
            if row["accuracy"] is not None:
                above.bar(row["from"], row["accuracy"], color="#0072b2", **bars)
                above.plot([row["confidence"]], [row["confidence"]], "_", **mark)
        above.plot([0, 1], [0, 1], "--", color="#333333", linewidth=1)
        above.plot([], [], "_", label="mean confidence of the bin", **mark)
        above.set_ylim(0, 1)
        above.legend(loc="upper left")
        above.set(title=f"{title}: ECE {100 * error:.2f}%", xlabel="", ylabel="accuracy")
        starts, shares = ([row[name] for row in reliability] for name in ("from", "share"))
        below.bar(starts, shares, color="#8c969f", **bars)
        below.set_yscale("log")
        per_cent(below.yaxis)
        below.set(title="", xlabel="confidence, the largest probability", ylabel="pixels")
    return path
