"""What annotation tools write, as masks in the package's own layout."""

from __future__ import annotations

from pathlib import Path

from fuzzyseg.data.annotations.coco import Coco, is_coco
from fuzzyseg.data.annotations.cvat import MAP, Cvat
from fuzzyseg.data.annotations.labelme import LabelMe, is_labelme
from fuzzyseg.data.annotations.reading import Json, Picture, Source, load_json
from fuzzyseg.data.annotations.writing import write_dataset
from fuzzyseg.data.sample import DataError
from fuzzyseg.data.text import counted, short

__all__ = ["Picture", "Source", "read_annotations", "write_dataset"]

EXPECTED = "LabelMe files (.json), COCO files (.json) or CVAT's Segmentation mask (labelmap.txt, SegmentationClass/)"


def read_annotations(source: Path, labels: list[str] | None = None) -> Source:
    """The annotations of a folder, or of one file; the kind is recognised by the content.

    labels: the lines of a file of labels, in the order of their class indices. Raises DataError naming the file.
    """
    if source.is_file() and source.suffix.lower() != ".json":
        hint = "; unpack it first" if source.suffix.lower() in (".zip", ".tar", ".gz") else ""
        raise DataError(f"{source}: is no folder and no .json file{hint}; expected {EXPECTED}")
    if not source.exists():
        raise DataError(f"{source}: does not exist; expected {EXPECTED}")
    if source.is_dir() and (source / MAP).is_file():
        return Cvat(source, labels)
    paths = [source] if source.is_file() else sorted(p for p in source.rglob("*.json") if p.is_file())
    kinds: dict[str, list[Path]] = {"LabelMe": [], "COCO": [], "other": []}
    problems = []
    for path in paths:
        try:
            kinds[_kind(load_json(path))].append(path)
        except DataError as error:
            problems.append(str(error))
    if problems:
        raise DataError(
            f"{counted(len(problems), 'annotation file')} cannot be read; nothing was written\n" + "\n".join(problems)
        )
    if kinds["LabelMe"] and kinds["COCO"]:
        raise DataError(
            f"{source}: holds LabelMe files such as {kinds['LabelMe'][0]} and COCO files such as {kinds['COCO'][0]}; "
            "convert them one after the other"
        )
    if kinds["LabelMe"] and kinds["other"]:
        raise DataError(f"{kinds['other'][0]}: is no LabelMe file (it has no list 'shapes'); mend it or move it away")
    if kinds["LabelMe"]:
        return LabelMe(source, kinds["LabelMe"], labels)
    if kinds["COCO"]:
        return Coco(source, kinds["COCO"], labels, left=kinds["other"])
    found = short(sorted(p.name + ("/" if p.is_dir() else "") for p in source.iterdir())) if source.is_dir() else "JSON"
    raise DataError(f"{source}: holds no annotations that are known; found {found or 'nothing'}; expected {EXPECTED}")


def _kind(content: Json) -> str:
    return "LabelMe" if is_labelme(content) else "COCO" if is_coco(content) else "other"
