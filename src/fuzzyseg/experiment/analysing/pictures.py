"""The figures: what was measured, handed to `report` as plain numbers and arrays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fuzzyseg.analysis.pixels import filled
from fuzzyseg.data import VOID
from fuzzyseg.data.io.mask import read_mask
from fuzzyseg.data.io.write import default_colours
from fuzzyseg.experiment.analysing.measuring import Array, Example, kept_maps, picture
from fuzzyseg.experiment.analysing.subject import Subject
from fuzzyseg.experiment.validation import training_parts
from fuzzyseg.losses import weight_curve
from fuzzyseg.report.charts import draw_entropy, draw_k_over_time, draw_training, draw_weights
from fuzzyseg.report.maps import Panel, draw_rows
from fuzzyseg.report.quality import draw_calibration, draw_cases, draw_confusions, draw_coverage

CLASS_COLOURS = (
    (86, 180, 233), (213, 94, 0), (240, 228, 66), (122, 122, 122), (204, 121, 167), (0, 158, 115),
    (0, 0, 0), (230, 159, 0), (0, 114, 178), (136, 34, 85), (68, 170, 153), (221, 204, 119),
)  # fmt: skip
"""Of up to twelve classes without colours of their own: Okabe and Ito's and four of Tol's, apart for all eyes."""


def draw(
    folder: Path, suffix: str, subject: Subject, result: dict[str, Any], examples: list[Example]
) -> dict[str, str]:
    """All figures that there is something to draw for: name of the file -> what it shows."""
    name, group = subject.shown, result["groups"][subject.shown]
    title = f"{name} images, {result['threshold_text']}"
    drawn: dict[str, str] = {}

    def add(stem: str, caption: str, make: Callable[[Path], Path]) -> None:
        file = make(folder / f"{stem}.{suffix}")
        drawn[file.name] = caption

    if examples:
        _draw_examples(add, subject, examples, title)
    add(
        "scores",
        "scores of the three cases, their frequency and K, and the gradient on the truth (Fig. 3b)",
        lambda path: draw_cases(path, group["cases"], group["effect"], title=title),
    )
    _draw_course(add, subject, result["over_time"])
    add("weights", "the adaptive weight as a curve, and as it occurs (Fig. 4b)", _weights(subject, group, result))
    add("entropy", "K against entropy", lambda path: draw_entropy(path, group["by_k"], title=title))
    add(
        "coverage",
        "how often the truth is in the fuzzy set, by K and by T",
        lambda path: draw_coverage(path, group["by_k"], group["table"], title=title),
    )
    if group["confusions"]:
        pairs = group["confusions"][:15]
        add("confusions", "which confusions FPL rescues", lambda path: draw_confusions(path, pairs, title=title))
    add(
        "calibration",
        "reliability diagram",
        lambda path: draw_calibration(path, group["reliability"], group["ece"], title=f"{name} images"),
    )
    return drawn


def _draw_examples(add: Any, subject: Subject, examples: list[Example], title: str) -> None:
    """Fig. 1 and Fig. 3a."""
    count = len(subject.card.classes)
    fallback = CLASS_COLOURS if count <= len(CLASS_COLOURS) else default_colours(count)
    table = colour_table(subject.card.colours or fallback)
    there = np.unique(np.concatenate([np.unique(e.mask) for e in examples] + [np.unique(e.sets) for e in examples]))
    legend = [(subject.card.classes[place], table[place] / 255) for place in there if place < count]
    if any((e.mask == VOID).any() for e in examples):
        legend.append(("void", table[VOID] / 255))
    if len(legend) > 21:
        legend = []  # more than a reader can tell apart
    sets = [
        [
            Panel("image", e.image),
            Panel("pseudo label", table[e.label]),
            Panel("fuzzy set (striped)", table[e.sets]),
            Panel("truth", table[e.mask]),
            Panel("outcome", e.case, "case"),
        ]
        for e in examples
    ]
    scores = [
        [
            Panel("image", e.image),
            Panel("truth", table[e.mask]),
            Panel("R, hard label", e.hard, "score"),
            Panel("R, fuzzy set", e.fuzzy, "score"),
        ]
        for e in examples
    ]
    names = [Path(e.name).name for e in examples]
    add(
        "fuzzy_sets",
        "image, pseudo label, fuzzy set and truth; a striped pixel has several classes (Fig. 1)",
        lambda path: draw_rows(path, sets, title=title, names=names, legend=legend),
    )
    add(
        "score_maps",
        "maps of the positive gradient score for the hard and the fuzzy loss (Fig. 3a)",
        lambda path: draw_rows(path, scores, title=title, names=names, legend=legend),
    )


def _draw_course(add: Any, subject: Subject, course: dict[str, Any]) -> None:
    """Fig. 4a, Fig. 5, and what each evaluation found."""
    if "k" in course:
        k = course["k"]
        add(
            "k_over_time",
            "K of the unlabelled pixels during training (Fig. 4a)",
            lambda path: draw_k_over_time(path, k["steps"], k["k_histogram"], title="unlabelled crops in training"),
        )
    evaluations = course.get("evaluations", [])
    if len(evaluations) > 1:
        steps = [each["step"] for each in evaluations]
        series: dict[str, dict[str, list[float | None]]] = {
            "truth covered": {
                "truth in the fuzzy set": [each["coverage"] for each in evaluations],
                "truth is the label": [each["top1"] for each in evaluations],
                "K > 1": [1 - each["k_histogram"][0] for each in evaluations],
            }
        }
        if all("cases" in each for each in evaluations):
            series["score R by case"] = {
                f"case {case}, {loss}": [each["cases"][case]["score"][loss] for each in evaluations]
                for case in "123"
                for loss in ("hard", "fuzzy")
            }
            series["calibration error"] = {"ECE": [each["ece"] for each in evaluations]}
        add(
            "training",
            "the validation images at each evaluation",
            lambda path: draw_training(path, steps, series, title="validation images, the network as its own teacher"),
        )
    steps, rows = kept_maps(subject)
    if rows:
        panels = [
            [
                Panel("image", picture(subject, next(training_parts(subject.reader, item))[0])),
                *(Panel(f"step {step}", read_mask(file), "k") for step, file in zip(steps, files, strict=True)),
            ]
            for item, files in rows
        ]
        add(
            "k_maps",
            "K of validation images at several steps (Fig. 5)",
            lambda path: draw_rows(
                path, panels, title="K during training", names=[Path(item.name).name for item, _ in rows]
            ),
        )


def _weights(subject: Subject, group: dict[str, Any], result: dict[str, Any]) -> Callable[[Path], Path]:
    """Fig. 4b for K = 2, the positives holding all of T."""
    threshold, k = subject.fixed or 0.9, min(2, len(subject.card.classes) - 1)
    m = threshold / k
    _, a, *_ = filled(subject.options)
    q = torch.linspace(0, m, 201, dtype=torch.float64)
    mean = torch.full_like(q, m)
    kinds = {"concave (Eq. 11)": "concave", "linear (Eq. 16)": "linear", "convex (Eq. 16)": "convex"}
    curves = {name: weight_curve(mean, q, kind=kind, a=a).tolist() for name, kind in kinds.items()}  # type: ignore[arg-type]
    # S_K <= T < S_K + q <= 1, and q is at most the least of the positives
    possible = (max(0.0, threshold - k * m), min(m, 1 - k * m))
    return lambda path: draw_weights(
        path, q.tolist(), curves, m=m, k=k, threshold=threshold, possible=possible, by_k=group["by_k"]
    )


def colour_table(colours: Any) -> Array:
    """(256,3) uint8: the colour of each class, white for void."""
    table = np.full((256, 3), 255, np.uint8)
    table[: len(colours)] = np.asarray(colours, np.uint8)
    return table
