"""Prediction of image files: file search, resumption, and outputs that combine all images."""

import csv
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

from fuzzyseg.data import VOID, DataError, Item
from fuzzyseg.data.io.find import Found, counts, find_images
from fuzzyseg.data.io.pillow import SUFFIXES, pixel_limit
from fuzzyseg.data.io.write import Unwritable, check_writable, written_beside
from fuzzyseg.data.labels.decode import training_labels
from fuzzyseg.data.loading.value_range import header_notes
from fuzzyseg.data.text import printable, short
from fuzzyseg.inference.outputs import ANNOTATIONS, KINDS, POLYGONS, Fuzzy
from fuzzyseg.inference.outputs.annotations import check_annotations
from fuzzyseg.inference.outputs.rasters import is_georeferenced
from fuzzyseg.inference.outputs.record import ADVICE, Line, Record, checksum, state_of
from fuzzyseg.inference.predict_image import ImagePrediction, Spread, one_by_one
from fuzzyseg.inference.predictor import Predictor, Protocol
from fuzzyseg.ops import distributed

log = logging.getLogger(__name__)

SHARES, LABELS = "class_shares.csv", "labels.txt"
OWN_MASKS = 10**7
"""Megapixel limit for masks written by `predict_files`, large enough to read them regardless of their size."""


def predict_files(
    predictor: Predictor,
    images: Path | Sequence[Path],
    out: Path,
    *,
    write: Sequence[str] = ("mask", "overlay"),
    encoded: bool = False,
    tile: tuple[int, int] | None = None,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    fuzzy: Fuzzy | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
    spread: Spread = one_by_one,
) -> tuple[list[Path], list[DataError]]:
    """Predict image files and write their masks and further outputs.

    images: files, folders (recursive) or patterns such as `photos/*.jpg`; other files are counted in a warning. The
    mask of NAME.jpg is `out`/masks/NAME.png: class indices at the image's size, 255 where it has no data, with the
    class colours as palette; for a georeferenced TIFF file, a georeferenced masks/NAME.tif. If two results would have
    the same name, all get the full file name (NAME.jpg.png). class_shares.csv contains each image's class fractions.

    write: further outputs (`KINDS`, docs/predict.md), in folders of the same names, or, for coco, cvat and labelstudio,
    one file for all images. encoded: write masks in the encoding of the training masks (colours, 0 and 255, values from
    1). tile: (H, W) of windows; by default only images too large for one pass are predicted in windows. scales, flip:
    average the predictions at several scales and of the mirrored image. fuzzy: T and options for the outputs `k` and
    `sets`. Large TIFF and NumPy files that need no resizing are read in windows; only outputs other than GeoTIFF are
    built in memory. progress: called with (files done, total files) of this process. spread: see `Spread`.

    If `out` contains results for the same model, options and image folder, prediction resumes: unchanged images with
    outputs are skipped, edited outputs are kept. overwrite: replace all results. Several processes split the images.

    Returns the files written, including earlier ones, and an error for each image that could not be predicted; both are
    empty except on the first process. Raises DataError if there are no images, if a result would replace an image or
    another file, if `out` contains results for a different model, image folder or options, or if it is not writable.
    """
    kinds = _checked(write)
    inputs = find_files([images] if isinstance(images, Path) else images, out)
    names = dict(zip(inputs.files, _names(inputs), strict=True))
    protocol = Protocol("whole" if tile is None else "sliding", tile, tuple(scales), flip, blend=True)
    annotations = [kind for kind in kinds if kind in ANNOTATIONS]
    check_annotations(annotations, predictor.card, names.values())
    direct = [kind for kind in kinds if kind not in annotations]
    prediction = ImagePrediction(predictor, out, direct, protocol, fuzzy or Fuzzy(), encoded)
    existing = _check_inputs(prediction, names)
    check_writable(out)
    how = {"model": checksum(predictor), "protocol": asdict(protocol), "outputs": kinds, "encoded": encoded}
    sets = {"T or options of the sets": asdict(prediction.fuzzy)} if {"k", "sets"} & set(kinds) else {}
    record = Record(out, how | {"image folder": str(inputs.root.resolve())} | sets, overwrite=overwrite)
    foreign = [target for file, target in existing.items() if _key(file, inputs.root) not in record.lines]
    combined = [SHARES, *(ANNOTATIONS[kind][0] for kind in annotations), *[LABELS] * bool(annotations)]
    foreign += [out / name for name in combined if (out / name).exists() and not record.lines]
    if foreign and not overwrite:
        raise DataError(f"{foreign[0]}: exists and is not an earlier result for these images; {ADVICE}")
    _predict(prediction, record, inputs.root, names, progress, spread)
    distributed.barrier()
    if distributed.rank() > 0:
        return [], []
    record.gather()
    return _finish(prediction, record, inputs.root, names, annotations)


def _checked(write: Sequence[str]) -> list[str]:
    """Return the output names, mask first. Raises DataError for unknown ones."""
    kinds = ["mask", *(kind for kind in dict.fromkeys(write) if kind != "mask")]
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise DataError(f"--write: found {', '.join(unknown)}; expected some of {', '.join(KINDS)}")
    if set(POLYGONS) & set(kinds):
        log.warning("polygons leave gaps between neighbours once a tool moves their corners; masks (cvat) do not")
    return kinds


def _predict(
    prediction: ImagePrediction,
    record: Record,
    root: Path,
    names: Mapping[Path, str],
    progress: Callable[[int, int], None] | None,
    spread: Spread,
) -> None:
    """Predict this process's share of the incomplete images, and record each."""
    share = list(names.items())[distributed.rank() :: distributed.world_size()]
    edited = {file: paths[0] for file, _ in share if (paths := record.edited(_key(file, root)))}
    if edited:
        log.warning(f"{short(list(edited.values()), 3)}: edited after the prediction, so kept; delete to predict again")
    known = {file for file, _ in share if file in edited or record.complete(_key(file, root), file) is not None}
    if known:
        log.warning(f"{len(known)} of {len(share)} images are already predicted; --overwrite predicts them again")
    done, states = len(known), dict[Path, list[int]]()
    if progress is not None and known:
        progress(done, len(share))

    def pending() -> Iterator[tuple[Path, str]]:
        for file, name in share:
            if file not in known:
                with suppress(FileNotFoundError):  # deleted in the meantime: reported as the image's error
                    states[file] = state_of(file)
                record.add(_key(file, root))  # marks files of this name as results if interrupted
                yield file, name

    try:
        for number, (file, result) in enumerate(spread(prediction, pending()), len(known) + 1):
            if isinstance(result, ValueError):
                record.add(_key(file, root), error=str(result) if str(file) in str(result) else f"{file}: {result}")
            else:
                outputs = [path.relative_to(prediction.out).as_posix() for path in result[0]]
                record.add(_key(file, root), outputs, file=states.get(file, []), pixels=result[1].tolist())
                done += 1
            if progress is not None:
                progress(number, len(share))
    except OSError as error:
        raise _unwritable(prediction.out, error, done, len(share)) from None
    except KeyboardInterrupt:
        log.warning(f"the results of {done} of {len(share)} images are complete; repeat the command")
        raise


def _finish(
    prediction: ImagePrediction, record: Record, root: Path, names: Mapping[Path, str], annotations: Sequence[str]
) -> tuple[list[Path], list[DataError]]:
    """Write the outputs that combine all images; return all output files, and the errors."""
    lines = {file: record.lines[_key(file, root)] for file in names}
    failures = [DataError(line["error"]) for line in lines.values() if "error" in line]
    complete = {file: line for file, line in lines.items() if "error" not in line}
    if not complete:
        return [], failures
    out, classes = prediction.out, prediction.predictor.card.classes
    written = [out / output for line in complete.values() for output in line["outputs"]]
    try:
        _write_shares(out / SHARES, list(complete.values()), classes)
        written += _annotate(prediction, annotations, complete, names)
    except OSError as error:
        raise _unwritable(out / SHARES, error, len(complete), len(lines)) from None
    return [*written, out / SHARES], failures


def _annotate(
    prediction: ImagePrediction, kinds: Sequence[str], lines: Mapping[Path, Line], names: Mapping[Path, str]
) -> list[Path]:
    """Write the annotations of all images from their masks, and the class names for `convert`; return the files."""
    card, out = prediction.predictor.card, prediction.out
    encoding, void = (card.encoding, card.ignore_index) if prediction.encoded else (None, VOID)
    with ExitStack() as stack, pixel_limit(OWN_MASKS):
        adds = [stack.enter_context(ANNOTATIONS[kind][1](out, card)) for kind in kinds]
        for file, line in lines.items() if adds else ():
            item = Item(file, out / next(iter(line["outputs"])), names[file], encoding)
            mask = training_labels(item, classes=len(card.classes), ignore_index=void)
            for add in adds:
                add(file, Path(line["image"]), names[file], mask)
    if not adds:
        return []
    with written_beside(out / LABELS) as part:
        part.write_text("\n".join([*card.classes, ""]), encoding="utf-8")
    each = [out / "labelme" / f"{names[file]}.json" for file in lines] if "labelme" in kinds else []
    return [*each, *(out / ANNOTATIONS[kind][0] for kind in kinds if kind != "labelme"), out / LABELS]


def _key(file: Path, root: Path) -> str:
    return file.relative_to(root).as_posix()


def _unwritable(path: Path, error: OSError, done: int, total: int) -> Unwritable:
    status = f"the results of {done} of {total} images are complete; repeat the command to continue"
    return Unwritable(path, error, status)


def _identity(file: Path) -> tuple[int, int]:
    """Return a file's device and inode, which are the same for all links to it."""
    status = file.stat()
    return status.st_dev, status.st_ino


def _check_inputs(prediction: ImagePrediction, names: Mapping[Path, str]) -> dict[Path, Path]:
    """Map each image that already has results to one of their files; warn about images unlike the training images.

    Raises DataError if a result would replace an image.
    """
    sources, existing = {_identity(file) for file in names}, {}
    for file, name in names.items():
        for target in (target for geo in (False, True) for target in prediction.files(name, geo=geo)):
            if target.exists():
                existing[file] = target
                if _identity(target) in sources:
                    raise DataError(f"{target}: is one of the images and would be overwritten; choose another --out")
    if find_spec("rasterio") is None and (lost := [file for file in names if is_georeferenced(file)]):
        log.warning(printable(f"{short(lost, 3)}: results have no georeference; pip install 'fuzzyseg[geo]' keeps it"))
    items = [Item(file, None, file.name) for file in names]
    for note in (*header_notes(items), *prediction.predictor.card.range_warnings(items)):
        log.warning(printable(note))
    return existing


def find_files(sources: Sequence[Path], out: Path) -> Found:
    """Return image files, except results below `out`. Several sources are listed relative to their common folder."""
    every = [_find_in(source, out) for source in sources]
    if len(every) == 1:
        return every[0]
    files = sorted({Path(os.path.abspath(file)) for result in every for file in result.files})
    return Found(Path(os.path.commonpath([file.parent for file in files])), files)


def _find_in(images: Path, out: Path) -> Found:
    if images.is_file():
        return Found(images.parent, [images])
    if images.is_dir() and out.resolve() == images.resolve():
        raise DataError(f"{out}: is the folder of the images; choose another --out")
    listing, results = find_images(images), out.resolve()
    if results != listing.root.resolve():
        listing.files = [file for file in listing.files if not file.resolve().is_relative_to(results)]
    if not listing.files:
        problem = (
            "there are no image files in it (files in --out are not counted)"
            if images.is_dir()
            else "there is no such file"
        )
        problem += f", but {counts(listing.others)}" if listing.others else ""
        raise DataError(f"{images}: {problem}; expected a file, folder or pattern; supported are {', '.join(SUFFIXES)}")
    if listing.others:
        log.warning(printable(f"{images}: not read as images: {counts(listing.others)}"))
    return listing


def _names(inputs: Found) -> list[str]:
    """Return the unique result name of each file."""
    names = [str(file.relative_to(inputs.root).with_suffix("")) for file in inputs.files]
    unique = {name.lower() for name in names}  # some file systems ignore case
    return names if len(unique) == len(names) else [str(file.relative_to(inputs.root)) for file in inputs.files]


def _write_shares(path: Path, lines: Sequence[Line], classes: list[str]) -> None:
    """Write one row per image: its path, the fraction of pixels of each class, and the fraction without data."""
    with written_beside(path) as part, part.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", *classes, "no data"])
        for line in lines:
            pixels, total = line["pixels"], sum(line["pixels"])
            table.writerow([line["image"], *(f"{n / total:.6f}" for n in (*pixels[: len(classes)], pixels[VOID]))])
