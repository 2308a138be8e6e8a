"""HTML report on run folders and sweeps: a single self-contained file."""

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from fuzzyseg.report.compare import comparison, difference, reference
from fuzzyseg.report.curves import charts
from fuzzyseg.report.read import (
    PER_RUN,
    SUPERVISED,
    Run,
    Score,
    distinct_arms,
    flat,
    names_of,
    read_run,
    row_of,
    rows_of,
    score_of,
)
from fuzzyseg.run.files import write_text
from fuzzyseg.run.folder import RunFolderError
from fuzzyseg.run.health import findings_of, review_of
from fuzzyseg.run.logs import SCORE

TEMPLATES = Path(__file__).parent / "templates"

MAX_BYTES = 8_000_000
"""Maximum bytes of pictures and confusion matrices in a page, which keeps it below 10 MB."""

CELL_BYTES = 120
"""Estimated size of a confusion-matrix cell in the page, in bytes."""


def write_report(paths: Sequence[Path], out: Path, *, title: str | None = None) -> Path:
    """Write a report on run folders, sweep folders and folders of sweep rows. Raises RunFolderError."""
    named = list(dict.fromkeys(path.resolve() for path in paths))
    sweeps = {path: rows for path in named if (rows := rows_of(path))}
    folders = [path for path in named if path not in sweeps]
    names = names_of(folders) if folders else {}
    runs = [read_run(path, names) for path in folders]
    if not runs and not sweeps:
        raise RunFolderError("nothing to report: give at least one run folder or the folder of a sweep")
    plain = [(f"{run.method} · {run.settings.get('loss.name')}", run.settings) for run in runs]
    for run, arm in zip(runs, distinct_arms(plain), strict=True):
        run.arm = arm
    rows = [row for each in sweeps.values() for row in each]
    for row, arm in zip(rows, distinct_arms([(str(row["arm"]), row["settings"]) for row in rows]), strict=True):
        row["arm"] = arm
    scores = list(dict.fromkeys(map(score_of, rows)))
    of_sweeps = {(score.repeat, score.split, score.miou): score.arm for score in reversed(scores)}
    for run in (run for run in runs if SCORE in (run.result.get("last") or {})):
        score = score_of(row_of(run))
        if variant := of_sweeps.get((score.repeat, score.split, score.miou)):
            run.arm = variant
        elif score not in scores:
            scores.append(score)
    context = {
        "title": title or _title(runs, rows),
        "runs": [_shown(run, scores, runs) for run in runs],
        "charts": charts(runs),
        "classes": _classes(runs),
        "comparisons": _comparisons(scores),
        "sweeps": list(dict.fromkeys(str(row.get("sweep")) for row in rows)),
        **_settings(runs, rows),
        "environment": _environment({run.name: run.environment for run in runs} or {rows[0]["arm"]: rows[0]}),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, render(context))
    return out


def render(context: dict[str, Any], template: str = "page.html") -> str:
    """Render a page. Text is escaped; the page loads nothing and runs only its own script (Content-Security-Policy)."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"percent": _percent, "points": lambda value: f"{value:.2f}"}
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    style = (TEMPLATES / "page.css").read_text(encoding="utf-8")
    page = environment.get_template(template).render(**context, script=script, style=style, digest=digest)
    return page.encode("utf-8", "replace").decode()  # file names may contain undecodable bytes


def _percent(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f}"


def _title(runs: Sequence[Run], rows: Sequence[dict[str, Any]]) -> str:
    names = list(dict.fromkeys([run.name for run in runs] or [str(row.get("sweep")) for row in rows]))
    return names[0] if len(names) == 1 else f"{len(names)} {'runs' if runs else 'sweeps'}: {', '.join(names)}"


def _shown(run: Run, scores: Sequence[Score], runs: Sequence[Run]) -> dict[str, Any]:
    """Return the template values of one run."""
    last, best, (done, steps) = run.last, run.best, run.steps
    settings = run.settings
    network = [str(settings[key]) for key in ("network.arch", "network.encoder") if settings.get(key)]
    others = [each for each in runs if each.method == SUPERVISED and each is not run and each.like(run)]
    baseline = {each["step"]: each[SCORE] for each in others[0].evaluations} if others else {}
    matrix = _matrix(run.evaluation)
    gallery = list(run.pictures(MAX_BYTES // len(runs) - CELL_BYTES * len(matrix["cells"] if matrix else ())))
    evaluated = run.evaluation.get("result") or {}
    sets = evaluated.get("calibration") or last.get("calibration") or {}
    return {
        "name": run.name,
        "arm": run.arm,
        "about": [run.method, f"loss {settings.get('loss.name')}", *network, f"{steps:,} steps"],
        "last": last,
        "best": best,
        "miou": last.get(SCORE),
        "error": last.get(f"{SCORE}_error"),
        "done": done,
        "steps": steps,
        "counts": run.counts,
        "gain": _gain(run, scores),
        "health": findings_of(run.lines, review_of(settings, baseline)),
        "matrix": matrix,
        "calibration": run.evaluation.get("calibration") or {},
        "sets": sets if "coverage_per_class" in sets else {},
        "evaluated": {"images": evaluated.get("images"), **{k: run.evaluation.get(k) for k in ("step", "split")}},
        "legend": _legend(run.evaluation),
        "gallery": gallery,
        "left_out": len(run.evaluation.get("gallery", [])) - len(gallery),
        "notes": run.result.get("notes") or [],
    }


def _gain(run: Run, scores: Sequence[Score]) -> dict[str, Any]:
    """Return the difference from the supervised baseline, and whether it counts as a gain."""
    data, labelled = run.split.get("data"), run.counts["labelled"]
    scores = [score for score in scores if (score.data, score.labelled) == (data, labelled)]
    arm_scores = [score for score in scores if score.arm == run.arm]
    others = [score for score in scores if score.supervised and score.arm != run.arm]
    if not arm_scores or arm_scores[0].supervised or not others:
        return {"kind": "baseline" if run.method == SUPERVISED else "unscored" if others else "missing"}
    second = reference(others)
    interval, seeds, excluded = difference(scores, run.arm, second, labelled)
    if interval is None:
        return {"kind": "excluded", "excluded": excluded, "baseline": second}
    kind = "single" if interval.n < 2 else "gain" if interval.gain else "loss" if interval.loss else "open"
    return {"kind": kind, "interval": interval, "seeds": seeds, "baseline": second, "excluded": excluded}


def _comparisons(scores: Sequence[Score]) -> list[dict[str, Any]]:
    """Return one comparison per dataset with several arms."""
    groups = [[s for s in scores if s.data == data] for data in dict.fromkeys(score.data for score in scores)]
    return [_comparison(group) for group in groups if len({score.arm for score in group}) > 1]


def _comparison(scores: Sequence[Score]) -> dict[str, Any]:
    """Return the table and differences of `comparison`, with the axis limits of the charts."""
    result = comparison(scores)
    ends = [row["mean"] + side * row["std"] for row in result["rows"] for side in (-1, 1)]
    ends += [value for row in result["rows"] for value in row["values"]]
    low, high = min(ends) - 0.5, max(ends) + 0.5
    result["axis"] = low, high
    intervals = [d["interval"] for d in result["differences"] if d["interval"] is not None]
    reach = max((abs(f.mean) + (f.half if f.n > 1 else 0) for f in intervals), default=1.0)
    result["reach"] = min(reach, 4 * max((abs(f.mean) for f in intervals), default=1.0)) or 1.0
    return result


def _classes(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return the IoU of each class in each run, with the ceiling and the fraction of true pixels where known."""
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
    """Return the confusion matrix's cells as fractions of true and predicted pixels, and the worst confusions."""
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
    """Return (name, colour) of the classes in the ground truth, largest first."""
    matrix = evaluation.get("matrix") or []
    entries = zip(evaluation.get("classes") or [], evaluation.get("colours") or [], map(sum, matrix), strict=False)
    ordered = sorted(entries, key=lambda entry: -entry[2])
    return [(n, c) for n, c, pixels in ordered if pixels and re.fullmatch("#[0-9a-f]{6}", str(c)) and c != "#000000"]


def _settings(runs: Sequence[Run], rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return a table of the settings, one column per run (without runs: per arm of a sweep), and its differing rows."""
    arms = {row["arm"]: row["settings"] for row in rows[::-1] if row.get("data") == rows[0].get("data")}
    columns = {run.name: run.settings for run in runs} or dict(reversed(arms.items()))
    keys = sorted({key for settings in columns.values() for key in settings} - (set() if runs else PER_RUN))
    table = [(key, ["" if key not in s else str(s[key]) for s in columns.values()]) for key in keys]
    differing = [row for row in table if len(set(row[1])) > 1 and row[0] != "out"]
    return {"columns": list(columns), "differing": differing, "settings": table if runs else []}


def _environment(records: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the environments as table rows, with one column per record."""
    parts = ("python", "platform", "command", "versions", "hardware", "code")
    columns = [flat({part: record[part] for part in parts if record.get(part)}) for record in records.values()]
    shown = [{key: " ".join(map(str, v)) if isinstance(v, list) else v for key, v in each.items()} for each in columns]
    keys = dict.fromkeys(key for each in shown for key, value in each.items() if value is not None)
    return {"columns": list(records), "rows": [(key, [each.get(key, "–") for each in shown]) for key in keys]}
