"""One pass over lists of images: counts that add up, maps of a few, and the course of the training from its log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fuzzyseg.analysis import (
    LEVELS,
    THRESHOLDS,
    Confident,
    Diagnosis,
    Pixels,
    ThresholdTable,
    count_confident,
    count_thresholds,
    diagnose,
    look,
)
from fuzzyseg.data import VOID, DataError, Item
from fuzzyseg.data.io.write import to_picture
from fuzzyseg.experiment.analysing.subject import Subject
from fuzzyseg.experiment.validation import spread, training_parts
from fuzzyseg.losses.fpl.assignment import SortedClasses, sorted_classes
from fuzzyseg.run.logs import read_lines

Array = NDArray[Any]
Counter = Callable[[int, int], None]


MOST_WIDE = 640
"""Pixels that an example is wide at most: a figure does not show more."""


@dataclass
class Example:
    """An image as arrays (H,W), thinned out where it is large: what is drawn of it.

    image (H,W,3) uint8. mask, label, sets: class indices, 255 for void; sets at a multiple of the size, in stripes: the
    classes of the fuzzy set in turn. k, case, and the scores of either loss, NaN where void.
    """

    name: str
    image: Array
    mask: Array
    label: Array
    sets: Array
    k: Array
    case: Array
    hard: Array
    fuzzy: Array


def measure(subject: Subject, images: int, progress: Counter | None) -> tuple[dict[str, dict[str, Any]], list[Example]]:
    """Plain numbers for each list of images, and examples, evenly spread, from `subject.shown`. Raises DataError."""
    chosen = set(spread(len(subject.lists[subject.shown]), images))
    total = sum(len(items) for items in subject.lists.values())
    levels = LEVELS if subject.confidence is None else sorted({*LEVELS, subject.confidence})
    groups: dict[str, dict[str, Any]] = {}
    examples: list[Example] = []
    done = 0
    for name, items in subject.lists.items():
        counts: Diagnosis | None = None
        table: ThresholdTable | None = None
        sure: Confident | None = None
        for number, item in enumerate(items):
            example, known = None, -1
            for image, mask in training_parts(subject.reader, item):
                target, teacher, ranking, pixels = _look(subject, image, mask)
                found, rows = diagnose(pixels, target), count_thresholds(ranking, target, options=subject.options)
                counts = found if counts is None else counts.plus(found)
                table = rows if table is None else table.plus(rows)
                above = count_confident(teacher, target, levels)
                sure = above if sure is None else sure.plus(above)
                here = int((mask != VOID).sum())
                if name == subject.shown and number in chosen and here > known:  # of tiles: the one that shows most
                    example, known = _example(subject, item.name, image, target, pixels), here
            examples += [] if example is None else [example]
            done += 1
            if progress is not None:
                progress(done, total)
        assert counts is not None and table is not None and sure is not None
        if not int(counts.sizes.pixels.sum()):
            raise DataError(
                f"{items[0].mask}: is void everywhere, as are all {len(items)} masks of the {name} images that were "
                "looked at; expected pixels of some class (is ignore_index right? --limit may leave too few images)"
            )
        groups[name] = {"images": len(items), **counts.numbers(), "table": table.numbers(THRESHOLDS)}
        groups[name]["confident"] = sure.numbers(levels)
        for row in groups[name]["confusions"]:
            row.update({side: subject.card.classes[row[side]] for side in ("truth", "label")})
    return groups, examples


def _look(subject: Subject, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, SortedClasses, Pixels]:
    """Of an image (Cin,H,W) and its mask (H,W): that as (1,H,W), the teacher's logits over its temperature, (1,C,H,W),
    its classes sorted, what FPL makes of it."""
    logits = subject.teacher.training_logits(image).unsqueeze(0)
    same, teacher = subject.student is subject.teacher, subject.tempered(logits)
    student = logits if same else subject.student.training_logits(image).unsqueeze(0)
    target = mask.unsqueeze(0).to(teacher.device)
    with torch.no_grad():
        ranking = sorted_classes(teacher)
    threshold = subject.threshold(teacher)
    pixels = look(teacher, student, target, threshold=threshold, options=subject.options, ranking=ranking)
    return target, teacher, ranking, pixels


def _example(subject: Subject, name: str, image: Tensor, target: Tensor, pixels: Pixels) -> Example:
    step = -(-image.shape[-1] // MOST_WIDE)

    def array(values: Tensor) -> Array:
        return values[0, ..., ::step, ::step].cpu().numpy()

    k = array(pixels.k)
    return Example(
        name,
        picture(subject, image[:, ::step, ::step]),
        array(target),
        array(pixels.label),
        striped(array(pixels.order), k),
        k,
        array(pixels.case),
        array(pixels.score.hard),
        array(pixels.score.fuzzy),
    )


def picture(subject: Subject, image: Tensor) -> Array:
    """An image (Cin,H,W) as (H,W,3) uint8, as pictures of predictions show it."""
    shown = to_picture(image.movedim(0, -1).numpy(), subject.card.mean, subject.card.std)
    return np.broadcast_to(shown, (*shown.shape[:2], 3))


def striped(order: Array, k: Array, wide: int = 480) -> Array:
    """The first k (H,W) classes of `order` (C,H,W) in turn, in diagonal stripes: (fH,fW), f so that it is `wide`."""
    factor = max(1, -(-wide // k.shape[1]))
    order, k = order.repeat(factor, 1).repeat(factor, 2), k.repeat(factor, 0).repeat(factor, 1)
    rows, columns = np.indices(k.shape)
    stripe = (rows + columns) // max(1, k.shape[1] // 60)
    picked: Array = np.take_along_axis(order, (stripe % k)[None], 0)[0]
    return picked


def over_time(subject: Subject) -> dict[str, Any]:
    """From metrics.jsonl: `k` of the unlabelled pixels as the loss saw them, and what each evaluation found.

    Empty where the run logged neither, or where there is no run.
    """
    run = subject.run
    if run is None or not run.metrics.is_file():
        return {}
    lines = read_lines(run.metrics)
    training = [line for line in lines if isinstance(line.get("metrics", {}).get("k_histogram"), list)]
    found: dict[str, Any] = {}
    if training:
        found["k"] = {
            "steps": [line["step"] for line in training],
            "k_histogram": [line["metrics"]["k_histogram"] for line in training],
            "weight": [line["metrics"].get("weight") for line in training],
        }
    evaluated = [line for line in lines if "fuzzy" in line.get("evaluation", {})]
    if evaluated:
        found["evaluations"] = [{"step": line["step"], **line["evaluation"]["fuzzy"]} for line in evaluated]
    return found


def kept_maps(subject: Subject, columns: int = 5) -> tuple[list[int], list[tuple[Item, list[Path]]]]:
    """Steps and, for each image of `train.k_maps`, its item and the files of its maps of K at these steps."""
    run = subject.run
    if run is None or not run.maps_dir.is_dir():
        return [], []
    folders = sorted(folder for folder in run.maps_dir.iterdir() if folder.is_dir() and folder.name.isdigit())
    picked = [folders[place] for place in _with_ends(len(folders), columns)]
    places = sorted({file.stem for folder in picked for file in folder.glob("*.png") if file.stem.isdigit()})
    rows = []
    for place in places:
        files = [folder / f"{place}.png" for folder in picked]
        if all(file.is_file() for file in files) and int(place) < len(subject.validation):
            rows.append((subject.validation[int(place)], files))
    return [int(folder.name) for folder in picked], rows


def _with_ends(total: int, wanted: int) -> Sequence[int]:
    """Places from 0 to total - 1, the first and the last among them, evenly."""
    if total <= wanted:
        return range(total)
    return [round(number * (total - 1) / (wanted - 1)) for number in range(wanted)]
