"""Training curves as SVG shapes for the page: positions in per cent of the plot, and tooltip values."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from fuzzyseg.report.charts import smooth
from fuzzyseg.report.maps import K_COLOURS
from fuzzyseg.report.read import Run
from fuzzyseg.run.logs import SCORE

MAX_POINTS = 300
"""Maximum number of points per curve (fewer if there are many runs); longer curves are averaged over neighbours."""

SIDE = 1000
"""Width and height of the plots in SVG units."""

Points = list[tuple[float, float]]


@dataclass
class Series:
    """A curve of one run. run: index of the run. raw: values are noisy, so a smoothed curve is drawn too."""

    run: int
    label: str
    points: Points
    raw: bool = False
    colour: str = ""


@dataclass
class Chart:
    """A chart. share: values are fractions, shown in per cent. stack: curves are stacked areas. dots: mark points."""

    title: str
    series: list[Series]
    note: str = ""
    share: bool = False
    stack: bool = False
    dots: bool = False
    _range: tuple[float, float, float, float] = field(default=(0, 1, 0, 1), init=False)

    def shapes(self) -> dict[str, Any]:
        """Return the values for the chart's template, and thin the series."""
        max_points = max(20, min(MAX_POINTS, 6 * MAX_POINTS // len(self.series)))  # keeps the page below 10 MB
        for each in self.series:
            each.points = thinned(each.points, max_points)
        x = [point[0] for each in self.series for point in each.points]
        y = [point[1] for each in self.series for point in each.points]
        low, high = (0.0, 1.0) if self.stack else _margins(min(y), max(y), at_zero=not self.dots)
        self._range = 0, max(*x, 1), low, high
        scale, unit = (100, " %") if self.share else (1, "")
        first, last = self._range[:2]
        return {
            "title": self.title,
            "note": self.note,
            "stack": self.stack,
            "curves": list(self._stacked() if self.stack else self._lines()),
            "x": [(f"{v:,.0f}", 100 * (v - first) / (last - first)) for v in ticks(first, last, 4) if v % 1 == 0],
            "y": [(f"{scale * v:.4g}{unit}", 100 - 100 * (v - low) / (high - low)) for v in ticks(low, high, 4)],
            "data": {
                "range": self._range,
                "share": self.share,
                "series": [
                    {"run": s.run, "label": s.label, "colour": s.colour, "x": [p[0] for p in s.points],
                     "y": [round(p[1], 6) for p in s.points]}
                    for s in self.series
                ],
            },
        }  # fmt: skip

    def _lines(self) -> Iterable[dict[str, Any]]:
        for each in self.series:
            drawn = {"run": each.run, "colour": each.colour, "dots": []}
            if each.raw and len(each.points) > 20:
                yield {**drawn, "kind": "raw", "d": self._path(each.points)}
                yield {**drawn, "kind": "line", "d": self._path(smoothed(each.points))}
            else:
                marked = self.dots or len(each.points) == 1
                dots = [(100 * x, 100 * y) for x, y in map(self._at, each.points)] if marked else []
                yield {**drawn, "kind": "line", "d": self._path(each.points), "dots": dots}

    def _stacked(self) -> Iterable[dict[str, Any]]:
        below = [0.0] * len(self.series[0].points)
        for each in self.series:
            lower = [(x, b) for (x, _), b in zip(each.points, below, strict=True)]
            below = [b + y for (_, y), b in zip(each.points, below, strict=True)]
            upper = [(x, b) for (x, _), b in zip(each.points, below, strict=True)]
            path = f"{self._path(upper)}L{self._path(lower[::-1])[1:]}Z"
            yield {"run": each.run, "colour": each.colour, "kind": "area", "d": path, "dots": []}

    def _path(self, points: Points) -> str:
        return "M" + "L".join(f"{x:.0f} {y:.0f}" for x, y in ((SIDE * a, SIDE * b) for a, b in map(self._at, points)))

    def _at(self, point: tuple[float, float]) -> tuple[float, float]:
        x0, x1, y0, y1 = self._range
        return (point[0] - x0) / (x1 - x0), 1 - (min(max(point[1], y0), y1) - y0) / (y1 - y0)


def _margins(low: float, high: float, *, at_zero: bool) -> tuple[float, float]:
    """Return axis limits with a margin around the values; `at_zero`: start at 0 if no value is negative."""
    margin = (high - low or abs(high) or 1) * 0.08
    start = 0.0 if at_zero and 0 <= low < high else low - margin
    return (max(0.0, start) if low >= 0 else start), high + margin


def ticks(low: float, high: float, count: int) -> list[float]:
    """Return round numbers between the limits, at about `count` intervals."""
    rough = (high - low) / count
    unit = 10 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 12) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def thinned(points: Points, max_points: int = MAX_POINTS) -> Points:
    """Return at most `max_points` points: means of neighbours, each at the step of the last one averaged."""
    size = -(-len(points) // max_points)
    parts = [points[start : start + size] for start in range(0, len(points), size)] if size > 1 else []
    return [(part[-1][0], sum(y for _, y in part) / len(part)) for part in parts] or points


def smoothed(points: Points) -> Points:
    """Return the moving average over a thirtieth of the curve on each side."""
    values = smooth([y for _, y in points], max(1, len(points) // 30))
    return [(x, y) for (x, _), y in zip(points, values, strict=True)]


def charts(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return all charts for which the runs have data."""
    drawn = []
    terms = dict.fromkeys(term for run in runs for line in run.lines for term in line.get("losses") or {})
    scores = _each(runs, lambda line: (line.get("evaluation") or {}).get(SCORE))
    drawn.append(Chart("mIoU", scores, "on the validation images", share=True, dots=True))
    for term in terms:
        drawn.append(Chart(f"{term} loss", _each(runs, _reader("losses", term), raw=True)))
    scalars = {"confidence": "mean confidence", "weight": "mean weight of FPL"}
    names = dict.fromkeys(
        name
        for run in runs
        for line in run.lines
        for name, value in (line.get("metrics") or {}).items()
        if isinstance(value, int | float)
    )
    for name in sorted(names, key=lambda name: name not in scalars):
        title = scalars.get(name, name)
        drawn.append(Chart(title, _each(runs, _reader("metrics", name), raw=True), share=name in scalars))
    singles = _each(runs, lambda line: _k_shares(line)[0] if _k_shares(line) else None, raw=True)
    note = "share of the pixels whose fuzzy set contains one class: there, FPL is weighted cross entropy"
    drawn.append(Chart("K = 1", singles, note, share=True))
    areas = (chart for place, run in enumerate(runs) for chart in _k_areas(place, run, several=len(runs) > 1))
    drawn += islice(areas, 3)
    return [chart.shapes() for chart in drawn if any(each.points for each in chart.series)]


def _reader(section: str, name: str) -> Callable[[Mapping[str, Any]], Any]:
    return lambda line: (line.get(section) or {}).get(name)


def _each(runs: Sequence[Run], value: Callable[[Mapping[str, Any]], Any], *, raw: bool = False) -> list[Series]:
    """Return one series per run that has values."""
    series = []
    for place, run in enumerate(runs):
        points = [(line["step"], float(number)) for line in run.lines if isinstance(number := value(line), int | float)]
        if points:
            series.append(Series(place, run.name, points, raw))
    return series


def _k_shares(line: Mapping[str, Any]) -> list[float]:
    shares = (line.get("metrics") or {}).get("k_histogram") or []
    return shares if len(shares) > 1 and None not in shares else []


def _k_areas(place: int, run: Run, *, several: bool) -> list[Chart]:
    """Return a chart of the fractions of pixels with K = 1, 2, ... in a run, as stacked areas."""
    lines = [(line["step"], shares) for line in run.lines if (shares := _k_shares(line))]
    if not lines:
        return []
    max_k, series = len(K_COLOURS), []
    for k in range(1, min(max_k, max(len(shares) for _, shares in lines)) + 1):
        points = [(step, sum(shares[k - 1 :]) if k == max_k else shares[k - 1]) for step, shares in lines]
        label = f"K ≥ {k}" if k == max_k else f"K = {k}"
        series.append(Series(place, label, smoothed(thinned(points)), colour=f"var(--k{k})"))
    title = f"size K of the fuzzy sets{f': {run.name}' if several else ''}"
    return [Chart(title, series, "shares of the pixels", share=True, stack=True)]
