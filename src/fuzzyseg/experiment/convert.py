"""Conversion of annotations to a dataset in the folder layout."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fuzzyseg.data import DataError
from fuzzyseg.data.annotations import check_empty, read_annotations, write_dataset
from fuzzyseg.data.labels.class_lists import read_names

Counter = Callable[[int, int], None]


@dataclass(frozen=True)
class Conversion:
    """Number of files written to each folder, an error for each image that was not written, notes, and class names."""

    written: dict[str, int]
    failures: list[DataError]
    notes: list[str]
    classes: list[str]


def convert(
    source: str | Path,
    out: str | Path,
    *,
    labels: str | Path | None = None,
    strict: bool = False,
    progress: Counter | None = None,
) -> Conversion:
    """Convert LabelMe, COCO or CVAT annotations to images/, masks/ and dataset.yaml in `out`.

    labels: text file with one label per line in the order of the class indices. Default: `labels.txt` in the source if
    it exists, otherwise the tool's order. strict: write nothing if a shape has an unknown type; otherwise its image is
    skipped. `out` must be new or empty. Raises DataError.
    """
    source, out = Path(source), Path(out)
    check_empty(out)
    default = source / "labels.txt"
    used = Path(labels) if labels is not None else default if default.is_file() else None
    annotations = read_annotations(source, None if used is None else read_names(used), strict=strict)
    written, failures = write_dataset(annotations, out, progress=progress)
    notes = [*annotations.notes, f"classes in the order of {used}"] if used else annotations.notes
    return Conversion(written, failures, notes, annotations.classes)
