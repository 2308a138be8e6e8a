r"""Gain of FPL over hard labels against statistics of the fuzzy sets: the regime map of docs/evidence.md.

    python recipes/evidence/regime_map.py results --out docs/figures/regime_map.svg \
        --json src/fuzzyseg/experiment/analyse/regime.json

`fuzzyseg analyse` uses the JSON file for its verdict.

Reads the result files of sweeps, one JSON per run, below the given folders. A pair is a run with the fuzzy loss and one
with hard labels, with the same folder, label count, subset, seed, data and settings except `loss`. A cell is the mean
over the pairs of one folder, method, label count and T. The features are those of the fuzzy run's last evaluation on
validation images. Intervals of Spearman's correlation are percentiles of 10,000 bootstrap samples of cells.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

FEATURES = {
    "case 2 / (case 2 + case 3)": lambda f: (f["coverage"] - f["top1"]) / max(1e-9, 1 - f["top1"]),
    "coverage - top-1": lambda f: f["coverage"] - f["top1"],
    "share of K > 1": lambda f: 1 - f["k_histogram"][0],
    "confidence - top-1 (ECE)": lambda f: f.get("ece"),
}


def read(folders: list[Path]) -> list[dict[str, Any]]:
    """Result files with the fuzzy or the hard loss, including older ones without settings (results/camvid)."""
    rows = []
    for path in sorted(path for folder in folders for path in folder.rglob("*.json")):
        content = json.loads(path.read_text())
        last = content.get("result", {}).get("last") if isinstance(content, dict) else None
        if not last or "fuzzy" not in last:
            continue
        settings = content.get("settings")
        if settings is None:  # results/camvid: CPS or AEL
            names = {"fuzzy": "fuzzy", "hard": "hard", "ael": "paper", "ael_fuzzy": "fuzzy"}
            if content["arm"] not in names:
                continue
            host = "ael" if content["arm"].startswith("ael") else "cps"
            settings = {"method.name": host, "loss.name": names[content["arm"]], "loss.threshold": 0.9}
            content |= {"seed": 0}
        kind = _kind(settings)
        if kind:
            rows.append(
                {
                    "folder": path.parent.name,
                    "method": settings["method.name"],
                    "kind": kind,
                    "threshold": settings["loss.threshold"],
                    "pair": (
                        content["labelled"],
                        content.get("subset"),
                        content["seed"],
                        content.get("data"),
                        str({key: value for key, value in settings.items() if not key.startswith("loss.")}),
                    ),
                    "score": last.get("miou_resolvable", last["miou"]),
                    "fuzzy": last["fuzzy"],
                }
            )
    return rows


def _kind(settings: dict[str, Any]) -> str | None:
    """fuzzy or hard; None for other losses. `paper` is hard if the paper of the method uses plain hard labels."""
    name = settings["loss.name"]
    if settings.get("loss.balance"):
        return None
    if name == "fuzzy":
        paper = settings.get("loss.rule", "n-1") == "n-1" and settings.get("loss.weight", "concave") == "concave"
        plain = settings.get("loss.k_cap") is None and isinstance(settings["loss.threshold"], float)
        return "fuzzy" if paper and plain and settings.get("method.confidence") != "gate" else None
    if name == "hard" or (name == "paper" and settings["method.name"] in {"cps", "ael", "u2pl"}):
        return "hard"
    return None


def cells(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean gain and features by folder, method, label count and T."""
    hard = {(row["folder"], row["method"], row["pair"]): row["score"] for row in rows if row["kind"] == "hard"}
    groups, seen = defaultdict(list), set()
    for row in rows:
        key = (row["folder"], row["method"], row["pair"])
        if row["kind"] == "fuzzy" and key in hard:
            features = {name: f(row["fuzzy"]) for name, f in FEATURES.items()}
            gain = 100 * (row["score"] - hard[key])
            if (gain, *features.values()) not in seen:  # a run may occur in two comparisons
                seen.add((gain, *features.values()))
                groups[(*key[:2], str(row["pair"][0]), row["threshold"])].append((gain, features))
    found = []
    for (folder, method, labelled, threshold), members in sorted(groups.items()):
        gains = [gain for gain, _ in members]
        cell = {"folder": folder, "method": method, "labelled": labelled, "threshold": threshold, "pairs": len(gains)}
        cell["gain"] = float(np.mean(gains))
        for name in FEATURES:
            values = [features[name] for _, features in members if features[name] is not None]
            cell[name] = float(np.mean(values)) if values else None
        found.append(cell)
    return found


def correlation(table: list[dict[str, Any]], feature: str) -> dict[str, float]:
    """Spearman's correlation of gain and feature over cells, with a 95% bootstrap interval."""
    points = np.array([(cell[feature], cell["gain"]) for cell in table if cell[feature] is not None])
    random = np.random.default_rng(0)
    samples = points[random.integers(0, len(points), (10_000, len(points)))]
    with np.errstate(all="ignore"):
        draws = [spearmanr(sample[:, 0], sample[:, 1])[0] for sample in samples]
    low, high = np.nanpercentile(draws, (2.5, 97.5))
    return {"rho": float(spearmanr(*points.T)[0]), "low": float(low), "high": float(high), "cells": len(points)}


def draw(table: list[dict[str, Any]], found: dict[str, dict[str, float]], path: Path) -> None:
    """Scatter plots, one per feature, coloured by dataset."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "fuzzyseg"})
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    for axis, name in zip(figure.subplots(1, len(FEATURES), sharey=True), FEATURES, strict=True):
        for colour, data in enumerate(("camvid", "nyu39", "voc_animals")):
            mine = [cell for cell in table if _data(cell["folder"]) == data and cell[name] is not None]
            size = [12 + 8 * cell["pairs"] for cell in mine]
            axis.scatter(
                [c[name] for c in mine], [c["gain"] for c in mine], s=size, c=f"C{colour}", label=data, alpha=0.8
            )
        axis.axhline(0, color="0.6", linewidth=0.8)
        axis.set_xlabel(name)
        r = found[name]
        axis.set_title(f"rho {r['rho']:.2f} [{r['low']:.2f}, {r['high']:.2f}]", fontsize=9)
    figure.axes[0].set_ylabel("FPL - hard, points of mIoU")
    figure.axes[0].legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


def _data(folder: str) -> str:
    return next((name for name in ("nyu39", "voc_animals") if name in folder), "camvid")


def rounded(values: dict[str, Any]) -> dict[str, Any]:
    """Round to four decimals."""
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in values.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="figure (svg, png)")
    parser.add_argument("--json", type=Path, required=True, help="cells and correlations")
    arguments = parser.parse_args()
    table = cells(read(arguments.folders))
    found = {name: correlation(table, name) for name in FEATURES}
    draw(table, found, arguments.out)
    lines = ",\n".join(json.dumps(rounded(cell)) for cell in table)
    head = json.dumps({name: rounded(value) for name, value in found.items()}, indent=1)
    arguments.json.write_text(f'{{"correlations": {head},\n"cells": [\n{lines}\n]}}\n')
    for name, value in found.items():
        print(f"{name}: rho {value['rho']:.2f} [{value['low']:.2f}, {value['high']:.2f}] over {value['cells']} cells")
