"""Conversion of LabelMe, COCO and CVAT annotations to masks in the folder layout."""

from __future__ import annotations

from pathlib import Path

from fuzzyseg.data.annotations.coco import Coco, is_coco
from fuzzyseg.data.annotations.cvat import MAP, Cvat
from fuzzyseg.data.annotations.labelme import LabelMe, is_labelme
from fuzzyseg.data.annotations.reading import AnnotatedImage, Annotations, load_json
from fuzzyseg.data.annotations.writing import check_empty, write_dataset
from fuzzyseg.data.io.find import names_in, walk
from fuzzyseg.data.sample import DataError, attempt_all
from fuzzyseg.data.text import short

__all__ = ["AnnotatedImage", "Annotations", "check_empty", "read_annotations", "write_dataset"]

KINDS = ("LabelMe", "COCO", "other")
EXPECTED = "LabelMe files (.json), COCO files (.json) or CVAT's Segmentation mask (labelmap.txt, SegmentationClass/)"


def read_annotations(source: Path, labels: list[str] | None = None, *, strict: bool = False) -> Annotations:
    """Read the annotations of a folder, or of one file; the format is detected. Hidden files are skipped.

    labels: lines of a labels file, in the order of the class indices. strict: shapes of an unknown type are an error;
    otherwise only their images are left out. Raises DataError.
    """
    if source.is_file() and source.suffix.lower() != ".json":
        hint = "; unpack it first" if source.suffix.lower() in (".zip", ".tar", ".gz") else ""
        raise DataError(f"{source}: is neither a folder nor a .json file{hint}; expected {EXPECTED}")
    if not source.exists():
        raise DataError(f"{source}: does not exist; expected {EXPECTED}")
    if source.is_dir() and (source / MAP).is_file():
        return Cvat(source, labels)
    found = [source] if source.is_file() else sorted(walk(source))
    paths = [path for path in found if path.suffix.lower() == ".json" and path.is_file()]
    kinds = attempt_all(_kind, paths, "annotation file")
    labelme, coco, other = ([p for p, kind in zip(paths, kinds, strict=True) if kind == name] for name in KINDS)
    if labelme and coco:
        raise DataError(
            f"{source}: contains LabelMe files such as {labelme[0]} and COCO files such as {coco[0]}; convert them "
            "separately"
        )
    if labelme and other:
        raise DataError(f"{other[0]}: is not a LabelMe file (no list 'shapes'); repair it or move it away")
    if labelme:
        return LabelMe(source, labelme, labels, strict=strict)
    if coco:
        return Coco(source, coco, labels, left=other)
    content = short(names_in(source)) if source.is_dir() else "JSON"
    raise DataError(f"{source}: contains no known annotations; found {content or 'nothing'}; expected {EXPECTED}")


def _kind(path: Path) -> str:
    content = load_json(path)
    return KINDS[0] if is_labelme(content) else KINDS[1] if is_coco(content) else KINDS[2]
