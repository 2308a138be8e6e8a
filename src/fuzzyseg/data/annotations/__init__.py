"""Conversion of LabelMe, COCO and CVAT annotations to the folder layout: images/, masks/ and dataset.yaml."""

import shutil
from collections.abc import Callable
from pathlib import Path

import yaml

from fuzzyseg.data.annotations.coco import Coco, File, lacking
from fuzzyseg.data.annotations.cvat import MAP, Cvat
from fuzzyseg.data.annotations.labelme import LabelMe, embedded_image, is_labelme
from fuzzyseg.data.annotations.reading import AnnotatedImage, Annotations, load_json
from fuzzyseg.data.dataset_yaml import FILE
from fuzzyseg.data.io.find import names_in, walk
from fuzzyseg.data.io.header import read_header
from fuzzyseg.data.io.image import read_native
from fuzzyseg.data.io.mask import save_index_png
from fuzzyseg.data.io.pillow import read_bytes
from fuzzyseg.data.io.write import Unwritable, check_writable, written_beside
from fuzzyseg.data.labels.class_counts import map_items
from fuzzyseg.data.sample import VOID, DataError, attempt_all
from fuzzyseg.data.text import repeated, short

__all__ = ["AnnotatedImage", "Annotations", "check_empty", "read_annotations", "write_dataset"]

KINDS = ("LabelMe", "COCO", "other")
EXPECTED = "LabelMe files (.json), COCO files (.json) or CVAT's Segmentation mask (labelmap.txt, SegmentationClass/)"


def read_annotations(source: Path, labels: list[str] | None = None, *, strict: bool = False) -> Annotations:
    """Read annotations from a folder or a single file, detecting the format. Hidden files are skipped.

    labels: class names in index order, from a labels file. strict: raise for shapes of an unknown type; otherwise only
    their images are skipped. Raises DataError.
    """
    if source.is_file() and source.suffix.lower() != ".json":
        hint = "; unpack it first" if source.suffix.lower() in (".zip", ".tar", ".gz") else ""
        raise DataError(f"{source}: is neither a folder nor a .json file{hint}; expected {EXPECTED}")
    if not source.exists():
        raise DataError(f"{source}: does not exist; expected {EXPECTED}")
    if source.is_dir() and (source / MAP).is_file():
        return Cvat(source, labels)
    candidates = [source] if source.is_file() else sorted(walk(source))
    paths = [path for path in candidates if path.suffix.lower() == ".json" and path.is_file()]
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
    for path in other:
        if len(missing := lacking(load_json(path))) < len(File.model_fields):
            raise DataError(f"{path}: is a COCO file without {' and '.join(missing)}; export it again, with masks")
    content = short(names_in(source)) if source.is_dir() else "JSON"
    raise DataError(f"{source}: contains no supported annotations; found {content or 'nothing'}; expected {EXPECTED}")


def _kind(path: Path) -> str:
    content = load_json(path)
    return KINDS[0] if is_labelme(content) else KINDS[1] if not lacking(content) else KINDS[2]


Counter = Callable[[int, int], None]


def write_dataset(
    source: Annotations, out: Path, *, progress: Counter | None = None
) -> tuple[dict[str, int], list[DataError]]:
    """Write `out/images`, `out/masks` and, last, `out/dataset.yaml`.

    Images are copied unchanged. Masks are 8-bit index PNGs of the image size with EXIF orientation applied. Returns the
    numbers of images and masks, and one error per image that was not written. Raises DataError if `out` is not empty,
    if two entries share a name or an image file, or on write errors. No partial files are left behind.
    """
    check_empty(out)
    if duplicates := repeated([picture.name for picture in source.pictures]):
        first, second, *_ = (picture.origin for picture in source.pictures if picture.name == duplicates[0])
        raise DataError(f"{second} and {first} are both named {duplicates[0]}; rename one")
    if again := repeated([picture.image for picture in source.pictures if picture.image is not None]):
        first, second, *_ = (picture.origin for picture in source.pictures if picture.image == again[0])
        raise DataError(f"{again[0]}: is annotated twice, in {first} and {second}; merge these or remove one")
    if not source.pictures:
        raise DataError("found no images to write; expected at least one")

    def write(picture: AnnotatedImage) -> DataError | bool:
        try:
            return _write(source, picture, out)
        except DataError as error:
            return error

    try:
        results = map_items(source.pictures, write, progress)
    except OSError as error:
        done = len(list(out.glob("masks/*.png")))
        status = f"{done} masks of {len(source.pictures)} images are complete; dataset.yaml is missing"
        raise Unwritable(out, error, f"{status}. Free disk space, remove {out} and repeat the command") from None
    failures = [result for result in results if isinstance(result, DataError)]
    written = {"images": len(results) - len(failures), "masks": results.count(True)}
    if not written["images"]:
        shutil.rmtree(out / "images", ignore_errors=True)  # contains only empty folders
    if written["images"]:
        metadata: dict[str, object] = {"classes": source.classes, "ignore_index": VOID}
        if source.colours is not None:
            metadata["colours"] = [list(colour) for colour in source.colours]
        text = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110)
        with written_beside(out / FILE) as part:
            part.write_text(text, encoding="utf-8")
    return written, failures


def check_empty(out: Path) -> None:
    """Raise DataError unless `out` is writable and either empty or nonexistent."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out}: is {'not empty' if out.is_dir() else 'a file'}; remove it or choose another --out")
    check_writable(out)


def _write(source: Annotations, picture: AnnotatedImage, out: Path) -> bool:
    """Copy the image and write its mask if it is annotated. Returns whether it is. Leaves no file behind on failure."""
    if picture.image is not None:
        data, suffix = read_bytes(picture.image), picture.image.suffix.lower()
    else:
        data, suffix = embedded_image(picture.origin)
    image = out / "images" / f"{picture.name}{suffix}"
    with written_beside(image) as part:
        part.write_bytes(data)
    try:
        head = read_header(image)
        pixels = read_native(image, 3 if head.palette else head.bands)  # reports damage before training
        if not picture.annotated:
            return False
        save_index_png(source.mask(picture, (pixels.shape[0], pixels.shape[1])), out / "masks" / f"{picture.name}.png")
    except BaseException as error:
        image.unlink(missing_ok=True)
        if isinstance(error, DataError) and str(image) in str(error):
            raise DataError(str(error).replace(str(image), str(picture.image or picture.origin))) from None
        raise
    return True
