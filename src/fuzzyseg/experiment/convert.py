"""Annotations of a tool -> a data set of the package's own layout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fuzzyseg.data import DataError
from fuzzyseg.data.annotations import read_annotations, write_dataset
from fuzzyseg.data.labels.class_lists import read_lines

Counter = Callable[[int, int], None]


@dataclass(frozen=True)
class Conversion:
    """What was written (numbers of files by folder), an error for each picture that was not, sentences on the rest."""

    written: dict[str, int]
    failures: list[DataError]
    found: list[str]
    classes: list[str]


def convert(
    source: str | Path, out: str | Path, *, labels: str | Path | None = None, progress: Counter | None = None
) -> Conversion:
    """Writes the annotations of LabelMe, COCO or CVAT as images/, masks/ and dataset.yaml below `out`.

    labels: a text file of labels in the order of their class indices, one a line; else `labels.txt` in the source, if
    there is one, else the tool's own order. `out` must not hold anything. Raises DataError naming the file.
    """
    source, out = Path(source), Path(out)
    usual = source / "labels.txt"
    used = Path(labels) if labels is not None else usual if usual.is_file() else None
    annotations = read_annotations(source, None if used is None else read_lines(used))
    written, failures = write_dataset(annotations, out, progress=progress)
    found = [*annotations.found, f"classes in the order of {used}"] if used else annotations.found
    return Conversion(written, failures, found, annotations.classes)
