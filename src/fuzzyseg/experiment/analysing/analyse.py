"""`analyse`: measure, draw, write."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from fuzzyseg.config import ConfigError
from fuzzyseg.data.io.pillow import pixel_limit
from fuzzyseg.experiment.analysing.answer import answer
from fuzzyseg.experiment.analysing.measuring import Example, measure, over_time
from fuzzyseg.experiment.analysing.pictures import draw
from fuzzyseg.experiment.analysing.subject import Subject, subject_of
from fuzzyseg.experiment.analysing.writing import page
from fuzzyseg.experiment.load_run import run_config
from fuzzyseg.run.files import write_text
from fuzzyseg.run.logs import plain

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
    """What FPL sees of a run or a model: K, the truth in the sets, scores of the three cases, calibration.

    source: a run folder, whose last.pt has teacher and student, or a model folder, which is both. data: a folder with
    images and masks to look at in place of the run's validation and labelled images. out: the folder for analysis.json,
    analysis.md and the figures; None: nothing is written. images: examples that are drawn. limit: images of each list
    at most. threshold: T; that of the run if not given. unlabelled_masks: also look at the images that the run took as
    unlabelled, whose masks are read for this diagnosis alone. pictures: png or svg. network: the factory, where the
    network is the user's own. progress: called with images done and in all.

    Returns the content of analysis.json. Raises ConfigError, DataError.
    """
    if pictures not in FORMATS:
        raise ConfigError(f"--pictures: found {pictures!r}; expected one of {', '.join(FORMATS)}")
    for option, value in (("--images", images), ("--limit", limit)):
        least = int(option == "--limit")
        if value is not None and value < least:
            raise ConfigError(f"{option}: found {value}; expected a number from {least}")
    config = run_config(Path(source))
    with pixel_limit(None if config is None else config.data.max_megapixels):
        subject = subject_of(
            Path(source),
            data=None if data is None else Path(data),
            threshold=threshold,
            unlabelled_masks=unlabelled_masks,
            limit=limit,
            device=device,
            network=network,
        )
        groups, examples = measure(subject, images if out is not None else 0, progress)
        result = _result(subject, groups)
        if out is not None:
            _write(Path(out), pictures, subject, result, examples)
    return result


def _write(folder: Path, pictures: str, subject: Subject, result: dict[str, Any], examples: list[Example]) -> None:
    """Figures, which are named in the result too, and analysis.json and analysis.md."""
    result["figures"] = draw(folder, pictures, subject, result, examples)
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(plain(result), indent=1, ensure_ascii=False, allow_nan=False)
    write_text(folder / "analysis.json", text + "\n")
    write_text(folder / "analysis.md", page(result))


def _result(subject: Subject, groups: dict[str, dict[str, Any]]) -> dict[str, Any]:
    asked = "val" if "val" in groups else next(iter(groups))
    text = f"T = {subject.fixed:g}" if subject.fixed is not None else "T of each pixel from its neighbourhood"
    if subject.fixed is None and subject.pixel_loss is not None and subject.pixel_loss.threshold.dim():
        text = "T of each pixel by its most probable class"
    return {
        "source": subject.source,
        **subject.roles,
        "classes": subject.card.classes,
        "loss": subject.loss,
        "threshold": subject.fixed,
        "threshold_text": text,
        "rule": subject.options.get("rule"),
        "weight": subject.options.get("weight"),
        "notes": subject.notes,
        "confidence": subject.confidence,
        "answer": answer(
            groups[asked]["table"],
            classes=len(subject.card.classes),
            images=f"the {asked} images",
            rule=subject.options.get("rule", "n-1"),
        ),
        "groups": groups,
        "over_time": over_time(subject),
    }
