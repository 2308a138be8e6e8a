"""Conversion of LabelMe, COCO and CVAT annotations to masks in the folder layout."""

from __future__ import annotations

from pathlib import Path

from fuzzyseg.data.annotations.coco import Coco, is_coco
from fuzzyseg.data.annotations.cvat import MAP, Cvat
from fuzzyseg.data.annotations.labelme import LabelMe, is_labelme
from fuzzyseg.data.annotations.reading import AnnotatedImage, Annotations, load_json
from fuzzyseg.data.annotations.writing import check_empty, write_dataset
from fuzzyseg.data.io.find import is_hidden
from fuzzyseg.data.sample import DataError
from fuzzyseg.data.text import counted, short

__all__ = ["AnnotatedImage", "Annotations", "check_empty", "read_annotations", "write_dataset"]

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
    paths = [source] if source.is_file() else _json_files(source)
    kinds: dict[str, list[Path]] = {"LabelMe": [], "COCO": [], "other": []}
    errors = []
    for path in paths:
        try:
            content = load_json(path)
            kinds["LabelMe" if is_labelme(content) else "COCO" if is_coco(content) else "other"].append(path)
        except DataError as error:
            errors.append(str(error))
    if errors:
        raise DataError(
            f"{counted(len(errors), 'annotation file')} cannot be read; nothing was written\n" + "\n".join(errors)
        )
    if kinds["LabelMe"] and kinds["COCO"]:
        raise DataError(
            f"{source}: contains LabelMe files such as {kinds['LabelMe'][0]} and COCO files such as "
            f"{kinds['COCO'][0]}; convert them separately"
        )
    if kinds["LabelMe"] and kinds["other"]:
        raise DataError(f"{kinds['other'][0]}: is not a LabelMe file (no list 'shapes'); repair it or move it away")
    if kinds["LabelMe"]:
        return LabelMe(source, kinds["LabelMe"], labels, strict=strict)
    if kinds["COCO"]:
        return Coco(source, kinds["COCO"], labels, left=kinds["other"])
    found = short(sorted(p.name + ("/" if p.is_dir() else "") for p in source.iterdir())) if source.is_dir() else "JSON"
    raise DataError(f"{source}: contains no known annotations; found {found or 'nothing'}; expected {EXPECTED}")


def _json_files(root: Path) -> list[Path]:
    files = (path for path in root.rglob("*.[jJ][sS][oO][nN]") if path.is_file())
    return sorted(path for path in files if not any(map(is_hidden, path.relative_to(root).parts)))
