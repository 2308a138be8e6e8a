"""`analyse`: statistics of a trained network's fuzzy sets, before or after training with FPL."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from fuzzyseg.config import ConfigError
from fuzzyseg.data.io.pillow import pixel_limit
from fuzzyseg.data.io.write import check_writable
from fuzzyseg.experiment.analyse.figures import draw
from fuzzyseg.experiment.analyse.inputs import Inputs, read_inputs
from fuzzyseg.experiment.analyse.measure import measure, over_time
from fuzzyseg.experiment.analyse.text import answer, page
from fuzzyseg.experiment.load_run import run_config
from fuzzyseg.report.drawing import require_matplotlib
from fuzzyseg.run.files import write_text
from fuzzyseg.run.logs import write_json

__all__ = ["analyse"]

FORMATS = ("png", "svg")


def analyse(
    source: str | Path,
    *,
    data: str | Path | None = None,
    out: str | Path | None = None,
    images: int = 4,
    limit: int | None = None,
    threshold: float | None = None,
    unlabelled_masks: bool = False,
    pictures: str = "png",
    device: str = "auto",
    network: Callable[[], nn.Module] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Measure K, coverage, scores of the three cases and calibration on the images of a run or a folder.

    source: a run folder, whose last.pt contains teacher and student, or a model folder, which is used as both. data:
    folder with images and masks to use instead of the run's validation and labelled images. out: folder for
    analysis.json, analysis.md and figures; None: write nothing. images: number of examples to draw. limit: maximum
    number of images per list. threshold: T. Default: the run's T. unlabelled_masks: include the run's unlabelled
    images, whose masks are read only for this diagnosis. pictures: png or svg. network: factory for a custom network.
    progress: called with (images done, images in total).

    Returns the content of analysis.json. Raises ConfigError, DataError.
    """
    if pictures not in FORMATS:
        raise ConfigError(f"--pictures: found {pictures!r}; expected one of {', '.join(FORMATS)}")
    for option, value in (("--images", images), ("--limit", limit)):
        minimum = int(option == "--limit")
        if value is not None and value < minimum:
            raise ConfigError(f"{option}: found {value}; expected at least {minimum}")
    if out is not None:
        require_matplotlib()
        check_writable(Path(out))
    config = run_config(Path(source))
    with pixel_limit(None if config is None else config.data.max_megapixels):
        root = None if data is None else Path(data)
        inputs = read_inputs(Path(source), root, threshold, unlabelled_masks, limit, device, network)
        groups, examples = measure(inputs, images if out is not None else 0, progress)
        result = _result(inputs, groups)
        if out is not None:
            folder = Path(out)
            result["figures"] = draw(folder, pictures, inputs, result, examples)
            write_json(folder / "analysis.json", result)
            write_text(folder / "analysis.md", page(result))
    return result


def _result(inputs: Inputs, groups: dict[str, dict[str, Any]]) -> dict[str, Any]:
    first = "val" if "val" in groups else next(iter(groups))
    text = f"T = {inputs.fixed:g}" if inputs.fixed is not None else "T of each pixel from its neighbourhood"
    if inputs.fixed is None and inputs.pixel_loss is not None and inputs.pixel_loss.threshold.dim():
        text = "T of each pixel by its most probable class"
    classes, rule = inputs.card.classes, inputs.options.rule
    return {
        "source": inputs.source,
        **inputs.roles,
        "classes": classes,
        "loss": inputs.card.loss or "unknown",
        "threshold": inputs.fixed,
        "threshold_text": text,
        "rule": rule,
        "weight": inputs.options.weight,
        "notes": inputs.notes,
        "confidence": inputs.confidence,
        "answer": answer(groups[first]["table"], classes=len(classes), images=f"the {first} images", rule=rule),
        "groups": groups,
        "over_time": over_time(inputs.run),
    }
