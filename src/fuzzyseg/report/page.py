"""The report: one HTML file that needs no network, from run folders and sweeps."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from fuzzyseg.report.compare import comparison, difference, reference
from fuzzyseg.report.curves import charts
from fuzzyseg.report.read import OWN, Run, Score, name_arms, names_of, read_run, rows_of, score_of_row, score_of_run
from fuzzyseg.run.files import write_text
from fuzzyseg.run.folder import RunFolderError
from fuzzyseg.run.health import findings_of, review_of
from fuzzyseg.run.logs import SCORE

TEMPLATES = Path(__file__).parent / "templates"

MOST_BYTES = 8_000_000
"""Bytes of pictures in a page, which stays below 10 MB."""

VIEWS = {
    "image": "image",
    "truth": "truth",
    "prediction": "prediction",
    "error": "errors",
    "k": "K",
    "score": "score R",
}
"""Views of a gallery's image and their names."""


def write_report(paths: Sequence[Path], out: Path, *, title: str | None = None) -> Path:
    """Write the page for run folders, and for folders of sweeps or of their rows. Raises RunFolderError."""
    named = list(dict.fromkeys(path.resolve() for path in paths))
    sweeps = {path: rows for path in named if (rows := rows_of(path))}
    folders = [path for path in named if path not in sweeps]
    names = names_of(folders) if folders else {}
    runs = [read_run(path, names) for path in folders]
    if not runs and not sweeps:
        raise RunFolderError("nothing to report: give at least one run folder, or the folder of a sweep")
    name_arms(runs)
    rows = [row for each in sweeps.values() for row in each]
    scores = [score_of_row(row) for row in rows]
    for run in runs:
        own = score_of_run(run)
        if own is not None and (known := next((s for s in scores if _same(s, own)), None)) is not None:
            run.arm = known.arm  # a run of the sweep
        elif own is not None:
            scores.append(own)
    context = {
        "title": title or _title(runs, rows),
        "runs": [_shown(run, scores, runs) for run in runs],
        "charts": charts(runs),
        "classes": _classes(runs),
        "views": VIEWS,
        "comparisons": _comparisons(scores),
        "sweeps": list(dict.fromkeys(str(row.get("sweep")) for row in rows)),
        **_settings(runs, rows),
        "environment": _environment([(run.name, run.environment) for run in runs] or _environments(rows)),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, render(_within_size(context)))
    return out


def render(context: dict[str, Any]) -> str:
    """The page of a context. Text is escaped; the page may load nothing and run no script but its own."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"percent": _percent, "points": lambda value: f"{value:.2f}"}
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    style = (TEMPLATES / "page.css").read_text(encoding="utf-8")
    page = environment.get_template("page.html").render(**context, script=script, style=style, digest=digest)
    return page.encode("utf-8", "replace").decode()  # bytes of file names that are no text


def _percent(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f}"


def _same(one: Score, two: Score) -> bool:
    return (one.labelled, one.repeat, one.split) == (two.labelled, two.repeat, two.split) and one.miou == two.miou


def _title(runs: Sequence[Run], rows: Sequence[dict[str, Any]]) -> str:
    names = list(dict.fromkeys([run.name for run in runs] or [str(row.get("sweep")) for row in rows]))
    return names[0] if len(names) == 1 else f"{len(names)} {'runs' if runs else 'sweeps'}: {', '.join(names)}"


def _shown(run: Run, scores: Sequence[Score], runs: Sequence[Run]) -> dict[str, Any]:
    """What the page shows of one run."""
    last, best, (done, steps) = run.last, run.best, run.steps
    settings = run.settings
    network = [str(settings[key]) for key in ("network.arch", "network.encoder") if settings.get(key)]
    baseline = next((each for each in runs if each.method == "supervised" and each is not run), None)
    return {
        "name": run.name,
        "arm": run.arm,
        "about": [run.method, f"loss {settings.get('loss.name')}", *network, f"{steps:,} steps"],
        "data": Path(str(settings.get("data.root"))).name,
        "last": last,
        "best": best,
        "miou": last.get(SCORE),
        "error": last.get(f"{SCORE}_error"),
        "resolvable": last.get(f"{SCORE}_resolvable"),
        "done": done,
        "steps": steps,
        "counts": run.counts,
        "gain": _gain(run, scores),
        "health": findings_of(run.lines, review_of(settings, _steps_of(baseline))),
        "matrix": _matrix(run.evaluation),
        "calibration": run.evaluation.get("calibration") or {},
        "fuzzy": last.get("fuzzy") or {},
        "evaluated": {key: run.evaluation.get(key) for key in ("step", "split")},
        "legend": _legend(run.evaluation),
        "gallery": list(run.pictures()),
        "left_out": 0,
        "notes": run.result.get("notes") or [],
    }


def _steps_of(baseline: Run | None) -> dict[int, float]:
    return {} if baseline is None else {each["step"]: each[SCORE] for each in baseline.evaluations}


def _gain(run: Run, scores: Sequence[Score]) -> dict[str, Any]:
    """The difference from the supervised baseline, and whether it may be called a gain."""
    data, labelled = run.split.get("data"), run.counts["labelled"]
    scores = [score for score in scores if (score.data, score.labelled) == (data, labelled)]
    own = [score for score in scores if score.arm == run.arm]
    others = [score for score in scores if score.supervised and score.arm != run.arm]
    if not own or own[0].supervised or not others:
        return {"kind": "baseline" if run.method == "supervised" else "missing"}
    second = reference(others)
    found, seeds, apart = difference(scores, run.arm, second, labelled)
    if found is None:
        return {"kind": "apart", "apart": apart, "baseline": second}
    kind = "single" if found.n < 2 else "gain" if found.gain else "loss" if found.loss else "open"
    return {"kind": kind, "found": found, "seeds": seeds, "baseline": second, "apart": apart}


def _comparisons(scores: Sequence[Score]) -> list[dict[str, Any]]:
    """A comparison for each data set on which there are several arms."""
    groups = [[s for s in scores if s.data == data] for data in dict.fromkeys(score.data for score in scores)]
    return [_comparison(group) for group in groups if len({score.arm for score in group}) > 1]


def _comparison(scores: Sequence[Score]) -> dict[str, Any]:
    """The table and differences of `comparison`, with bounds of the charts."""
    found = comparison(scores)
    ends = [row["mean"] + side * row["std"] for row in found["rows"] for side in (-1, 1)]
    ends += [value for row in found["rows"] for value in row["values"]]
    low, high = min(ends) - 0.5, max(ends) + 0.5
    found["axis"] = low, high
    shown = [d["found"] for d in found["differences"] if d["found"] is not None]
    reach = max((abs(f.mean) + (f.half if f.n > 1 else 0) for f in shown), default=1.0)
    found["reach"] = min(reach, 4 * max((abs(f.mean) for f in shown), default=1.0)) or 1.0
    return found


def _classes(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """IoU of each class for each run, with its ceiling and its share of the true pixels where they are known."""
    names = dict.fromkeys(name for run in runs for name in run.last.get("per_class") or {})
    shares: dict[str, float] = {}
    ceilings: dict[str, Any] = {}
    for run in runs[::-1]:
        matrix = run.evaluation.get("matrix") or []
        total = sum(map(sum, matrix)) or 1
        known = run.evaluation.get("classes") or []
        shares |= {name: sum(row) / total for name, row in zip(known, matrix, strict=False)}
        ceilings |= run.last.get("ceiling") or {}
    return [
        {"name": name, "share": shares.get(name), "ceiling": ceilings.get(name),
         "iou": [(run.last.get("per_class") or {}).get(name) for run in runs]}
        for name in names
    ]  # fmt: skip


def _matrix(evaluation: dict[str, Any]) -> dict[str, Any] | None:
    """Cells of the confusion matrix with their shares of the true and of the predicted pixels; the worst pairs."""
    matrix, names = evaluation.get("matrix"), evaluation.get("classes") or []
    if not matrix:
        return None
    truth, predicted = [sum(row) for row in matrix], [sum(column) for column in zip(*matrix, strict=True)]
    total = sum(truth) or 1
    cells = [
        {"y": y, "x": x, "n": n, "t": round(n / truth[y], 4), "p": round(n / predicted[x], 4)}
        for y, row in enumerate(matrix)
        for x, n in enumerate(row)
        if n and (n / truth[y] >= 0.002 or n / predicted[x] >= 0.002)
    ]
    wrong = sorted((c for c in cells if c["x"] != c["y"]), key=lambda c: -c["n"])[:8]
    return {"names": names, "cells": cells, "worst": [{**c, "share": c["n"] / total} for c in wrong]}


def _legend(evaluation: dict[str, Any]) -> list[tuple[str, str]]:
    """Name and colour of the classes in the truth, the largest first."""
    matrix = evaluation.get("matrix") or []
    entries = zip(evaluation.get("classes") or [], evaluation.get("colours") or [], map(sum, matrix), strict=False)
    ordered = sorted(entries, key=lambda entry: -entry[2])
    return [(n, c) for n, c, pixels in ordered if pixels and re.fullmatch("#[0-9a-f]{6}", str(c)) and c != "#000000"]


def _settings(runs: Sequence[Run], rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Settings by column (runs, else the arms of a sweep): those that differ, and all."""
    arms = {row["arm"]: row["settings"] for row in rows[::-1] if row.get("data") == rows[0].get("data")}
    columns = {run.name: run.settings for run in runs} or dict(reversed(arms.items()))
    keys = sorted({key for settings in columns.values() for key in settings} - (set() if runs else OWN))
    table = [(key, ["" if key not in s else str(s[key]) for s in columns.values()]) for key in keys]
    differing = [row for row in table if len(set(row[1])) > 1]
    return {"columns": list(columns), "differing": differing, "settings": table if runs else []}


def _environments(rows: Sequence[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    return [(str(rows[0].get("sweep")), {key: rows[0].get(key) for key in ("versions", "hardware", "code")})]


def _environment(records: Sequence[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """Rows of the environments; a column for each."""
    flattened = []
    for _, record in records:
        values = {key: record[key] for key in ("python", "platform") if record.get(key)}
        for part in ("versions", "hardware", "code"):
            values |= {k: v for k, v in (record.get(part) or {}).items() if v is not None}
        if record.get("command"):
            values["command"] = " ".join(map(str, record["command"]))
        flattened.append(values)
    keys = dict.fromkeys(key for values in flattened for key in values)
    rows = [(key, [str(values.get(key, "–")) for values in flattened]) for key in keys]
    return {"columns": [name for name, _ in records], "rows": rows}


def _within_size(context: dict[str, Any]) -> dict[str, Any]:
    """Leave out pictures beyond the size of a page, the last of each run first."""
    left = MOST_BYTES
    queues = [(run, run["gallery"]) for run in context["runs"]]
    for run, _ in queues:
        run["gallery"] = []
    for place in range(max((len(entries) for _, entries in queues), default=0)):
        for run, entries in queues:
            if place < len(entries):
                left -= sum(map(len, entries[place]["views"].values()))
                if left > 0:
                    run["gallery"].append(entries[place])
                else:
                    run["left_out"] += 1
    return context
