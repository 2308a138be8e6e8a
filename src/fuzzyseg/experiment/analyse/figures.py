"""Figures of `analyse`, drawn by `report` from plain numbers and arrays."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fuzzyseg.data import VOID
from fuzzyseg.data.io.mask import read_mask
from fuzzyseg.data.io.write import class_colours
from fuzzyseg.experiment.analyse.inputs import Inputs
from fuzzyseg.experiment.analyse.measure import Example, kept_maps, picture
from fuzzyseg.experiment.validation import training_parts
from fuzzyseg.losses import weight_curve
from fuzzyseg.report.charts import draw_entropy, draw_k_over_time, draw_training, draw_weights
from fuzzyseg.report.maps import Panel, draw_rows
from fuzzyseg.report.quality import draw_calibration, draw_cases, draw_confusions, draw_coverage

MAX_NAMED = 21
"""Maximum number of classes for which a legend is drawn; more colours are hard to tell apart."""

Add = Callable[..., None]


def draw(folder: Path, suffix: str, inputs: Inputs, result: dict[str, Any], examples: list[Example]) -> dict[str, str]:
    """Draw all figures for which there is data. Returns file name -> caption."""
    name, group = inputs.shown, result["groups"][inputs.shown]
    title = f"{name} images, {result['threshold_text']}"
    drawn: dict[str, str] = {}

    def add(
        stem: str, caption: str, make: Callable[..., Path], *values: Any, title: str = title, **options: Any
    ) -> None:
        file = make(folder / f"{stem}.{suffix}", *values, title=title, **options)
        drawn[file.name] = caption

    if examples:
        _draw_examples(add, inputs, examples)
    caption = "scores of the three cases, their frequency and K, and the gradient on the truth (Fig. 3b)"
    add("scores", caption, draw_cases, group["cases"], group["effect"])
    _draw_course(add, inputs, result["over_time"])
    _draw_weights(add, inputs, group["by_k"])
    add("entropy", "K against entropy", draw_entropy, group["by_k"])
    caption = "fraction of pixels with the true class in the fuzzy set, by K and by T"
    add("coverage", caption, draw_coverage, group["by_k"], group["table"])
    if group["confusions"]:
        caption = "confusions, and how often the fuzzy set still contains the true class"
        add("confusions", caption, draw_confusions, group["confusions"][:15])
    calibration = group["reliability"], group["ece"]
    add("calibration", "reliability diagram", draw_calibration, *calibration, title=f"{name} images")
    return drawn


def _draw_examples(add: Add, inputs: Inputs, examples: list[Example]) -> None:
    """Draw Fig. 1 and Fig. 3a."""
    count = len(inputs.card.classes)
    table = np.full((256, 3), 255, np.uint8)  # white for void
    table[:count] = inputs.card.colours or class_colours(count)
    present = np.unique(np.concatenate([array.ravel() for e in examples for array in (e.mask, e.sets)]))
    legend = [(inputs.card.classes[place], table[place] / 255) for place in present if place < count]
    if any((e.mask == VOID).any() for e in examples):
        legend.append(("void", table[VOID] / 255))
    options = {"names": [Path(e.name).name for e in examples], "legend": legend if len(legend) <= MAX_NAMED else []}
    sets, scores = [], []
    for e in examples:
        image, truth = Panel("image", e.image), Panel("truth", table[e.mask])
        label, striped = Panel("pseudo label", table[e.label]), Panel("fuzzy set (striped)", table[e.sets])
        sets.append([image, label, striped, truth, Panel("outcome", e.case, "case")])
        scores.append([image, truth, Panel("R, hard label", e.hard, "score"), Panel("R, fuzzy set", e.fuzzy, "score")])
    caption = "image, pseudo label, fuzzy set and truth; a striped pixel has several classes (Fig. 1)"
    add("fuzzy_sets", caption, draw_rows, sets, **options)
    caption = "maps of the positive gradient score for the hard and the fuzzy loss (Fig. 3a)"
    add("score_maps", caption, draw_rows, scores, **options)


def _draw_course(add: Add, inputs: Inputs, course: dict[str, Any]) -> None:
    """Draw Fig. 4a, Fig. 5, and the statistics of each evaluation."""
    if "k" in course:
        caption, values = "K of the unlabelled pixels during training (Fig. 4a)", course["k"]
        k = values["steps"], values["k_histogram"]
        add("k_over_time", caption, draw_k_over_time, *k, title="unlabelled crops in training")
    evaluations = course.get("evaluations", [])
    if len(evaluations) > 1:
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
        steps, title = [each["step"] for each in evaluations], "validation images, the network as its own teacher"
        add("training", "the validation images at each evaluation", draw_training, steps, series, title=title)
    steps, rows = kept_maps(inputs)
    if rows:
        panels = []
        for item, files in rows:
            image = Panel("image", picture(inputs, next(training_parts(inputs.reader, item))[0]))
            maps = zip(steps, files, strict=True)
            panels.append([image, *(Panel(f"step {step}", read_mask(file), "k") for step, file in maps)])
        names, caption = [Path(item.name).name for item, _ in rows], "K of validation images at several steps (Fig. 5)"
        add("k_maps", caption, draw_rows, panels, title="K during training", names=names)


def _draw_weights(add: Add, inputs: Inputs, by_k: list[dict[str, Any]]) -> None:
    """Draw Fig. 4b for K = 2, where the probabilities of the positives sum to T."""
    threshold, k = inputs.fixed or 0.9, min(2, len(inputs.card.classes) - 1)
    m, a = threshold / k, inputs.options.a
    q = torch.linspace(0, m, 201, dtype=torch.float64)
    kinds = {"concave (Eq. 11)": "concave", "linear (Eq. 16)": "linear", "convex (Eq. 16)": "convex"}
    curves = {
        name: weight_curve(torch.full_like(q, m), q, kind=kind, a=a).tolist()  # type: ignore[arg-type]
        for name, kind in kinds.items()
    }
    # S_K <= T < S_K + q <= 1, and q is at most the smallest positive probability
    possible = (max(0.0, threshold - k * m), min(m, 1 - k * m))
    options = {"m": m, "k": k, "threshold": threshold, "possible": possible, "by_k": by_k}
    caption = "the adaptive weight as a curve, and as it occurs (Fig. 4b)"
    add("weights", caption, draw_weights, q.tolist(), curves, title="", **options)
