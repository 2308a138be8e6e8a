"""Statistics of all images in one pass, maps of example images, and statistics logged during training."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fuzzyseg.analysis.diagnosis import Diagnosis, diagnose
from fuzzyseg.analysis.pixels import PixelMaps, pixel_maps
from fuzzyseg.analysis.table import LEVELS, THRESHOLDS, Confident, ThresholdTable, count_confident, count_thresholds
from fuzzyseg.data import VOID, DataError, Item
from fuzzyseg.data.io.write import to_picture
from fuzzyseg.experiment.analyse.inputs import Inputs
from fuzzyseg.experiment.validation import evenly_spaced, training_parts
from fuzzyseg.losses.fpl.assignment import sorted_classes
from fuzzyseg.run.folder import RunFolder
from fuzzyseg.run.logs import read_lines

Array = NDArray[Any]
Counter = Callable[[int, int], None]
Counts = tuple[Diagnosis, ThresholdTable, Confident]

MAX_WIDTH = 640
"""Maximum width of an example in pixels; enough for a figure."""


@dataclass
class Example:
    """Maps (H,W) of an example image, subsampled if large.

    image: (H,W,3) uint8. mask, label, sets: class indices, 255 for void; sets is upsampled by an integer factor and
    shows the classes of each fuzzy set as stripes. case: as in `PixelMaps`. hard, fuzzy: scores, NaN for void.
    """

    name: str
    image: Array
    mask: Array
    label: Array
    sets: Array
    case: Array
    hard: Array
    fuzzy: Array


def measure(inputs: Inputs, images: int, progress: Counter | None) -> tuple[dict[str, dict[str, Any]], list[Example]]:
    """Return the statistics of each list, and evenly spaced examples from `inputs.shown`. Raises DataError."""
    chosen = evenly_spaced(range(len(inputs.lists[inputs.shown])), images)
    total = sum(len(items) for items in inputs.lists.values())
    levels = LEVELS if inputs.confidence is None else sorted({*LEVELS, inputs.confidence})
    groups: dict[str, dict[str, Any]] = {}
    examples: list[Example] = []
    done = 0
    for name, items in inputs.lists.items():
        sums: Any = None
        for number, item in enumerate(items):
            example, known = None, -1
            for image, mask in training_parts(inputs.reader, item):
                counts, pixels, target = _measure(inputs, image, mask, levels)
                sums = counts if sums is None else tuple(a.plus(b) for a, b in zip(sums, counts, strict=True))
                here = int((mask != VOID).sum())
                if (
                    name == inputs.shown and number in chosen and here > known
                ):  # of several tiles, the one with the most labelled pixels
                    example, known = _example(inputs, item.name, image, target, pixels), here
            examples += [] if example is None else [example]
            done += 1
            if progress is not None:
                progress(done, total)
        assert sums is not None
        diagnosis, table, confident = sums
        if not int(diagnosis.pixels.sum()):
            raise DataError(
                f"{items[0].mask}: is void everywhere, as are all {len(items)} masks of the {name} images; expected "
                "pixels of at least one class (is ignore_index correct? is --limit too small?)"
            )
        groups[name] = {"images": len(items), **diagnosis.numbers(), "table": table.numbers(THRESHOLDS)}
        groups[name]["confident"] = confident.numbers(levels)
        for row in groups[name]["confusions"]:
            row.update({side: inputs.card.classes[row[side]] for side in ("truth", "label")})
    return groups, examples


def _measure(inputs: Inputs, image: Tensor, mask: Tensor, levels: Sequence[float]) -> tuple[Counts, PixelMaps, Tensor]:
    """Return statistics and maps of an image (Cin,H,W) with mask (H,W), and the mask (1,H,W) on the device."""
    logits = inputs.teacher.training_logits(image).unsqueeze(0)
    same, teacher = inputs.student is inputs.teacher, inputs.tempered(logits)
    student = logits if same else inputs.student.training_logits(image).unsqueeze(0)
    target = mask.unsqueeze(0).to(teacher.device)
    with torch.no_grad():
        ranking = sorted_classes(teacher)
    threshold = inputs.threshold(teacher)
    pixels = pixel_maps(teacher, student, target, threshold=threshold, options=inputs.options, ranking=ranking)
    table = count_thresholds(ranking, target, options=inputs.options)
    return (diagnose(pixels, target), table, count_confident(teacher, target, levels)), pixels, target


def _example(inputs: Inputs, name: str, image: Tensor, target: Tensor, pixels: PixelMaps) -> Example:
    step = -(-image.shape[-1] // MAX_WIDTH)

    def array(values: Tensor) -> Array:
        return values[0, ..., ::step, ::step].cpu().numpy()

    k = array(pixels.k)
    maps = target, pixels.label, pixels.case, pixels.score.hard, pixels.score.fuzzy
    mask, label, case, hard, fuzzy = map(array, maps)
    shown = picture(inputs, image[:, ::step, ::step])
    return Example(name, shown, mask, label, striped(array(pixels.order), k), case, hard, fuzzy)


def picture(inputs: Inputs, image: Tensor) -> Array:
    """Convert an image (Cin,H,W) to (H,W,3) uint8, as in prediction overlays."""
    shown = to_picture(image.movedim(0, -1).numpy(), inputs.card.mean, inputs.card.std)
    return np.broadcast_to(shown, (*shown.shape[:2], 3))


def striped(order: Array, k: Array, wide: int = 480) -> Array:
    """Draw the first k (H,W) classes of `order` (C,H,W) as diagonal stripes, upsampled to at least `wide` columns."""
    factor = max(1, -(-wide // k.shape[1]))
    order, k = order.repeat(factor, 1).repeat(factor, 2), k.repeat(factor, 0).repeat(factor, 1)
    rows, columns = np.indices(k.shape)
    stripe = (rows + columns) // max(1, k.shape[1] // 60)
    picked: Array = np.take_along_axis(order, (stripe % k)[None], 0)[0]
    return picked


def over_time(run: RunFolder | None) -> dict[str, Any]:
    """Return values logged in metrics.jsonl: `k` of the unlabelled pixels in the training loss, and `evaluations`."""
    if run is None or not run.metrics.is_file():
        return {}
    lines = read_lines(run.metrics)
    training = [line for line in lines if isinstance(line.get("metrics", {}).get("k_histogram"), list)]
    result: dict[str, Any] = {}
    if training:
        result["k"] = {
            "steps": [line["step"] for line in training],
            "k_histogram": [line["metrics"]["k_histogram"] for line in training],
            "weight": [line["metrics"].get("weight") for line in training],
        }
    evaluated = [line for line in lines if "fuzzy" in line.get("evaluation", {})]
    if evaluated:
        result["evaluations"] = [{"step": line["step"], **line["evaluation"]["fuzzy"]} for line in evaluated]
    return result


def kept_maps(inputs: Inputs, columns: int = 5) -> tuple[list[int], list[tuple[Item, list[Path]]]]:
    """Return evenly spaced steps with stored maps of K (`train.k_maps`), and each image's files at these steps."""
    run = inputs.run
    if run is None or not run.maps_dir.is_dir():
        return [], []
    folders = sorted(folder for folder in run.maps_dir.iterdir() if folder.is_dir() and folder.name.isdigit())
    if len(folders) > columns:
        folders = [folders[round(place * (len(folders) - 1) / (columns - 1))] for place in range(columns)]
    rows = []
    for place in sorted({file.stem for folder in folders for file in folder.glob("*.png") if file.stem.isdigit()}):
        files = [folder / f"{place}.png" for folder in folders]
        if all(file.is_file() for file in files) and int(place) < len(inputs.validation):
            rows.append((inputs.validation[int(place)], files))
    return [int(folder.name) for folder in folders], rows
