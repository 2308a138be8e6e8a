"""Selection of images to label next: scoring, selection, pictures, and export to an annotation tool."""

import csv
import io
import logging
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from fuzzyseg.config import Config, ConfigError
from fuzzyseg.data import DataError
from fuzzyseg.data.check.files import inspect_file
from fuzzyseg.data.io.pillow import pixel_limit
from fuzzyseg.data.io.write import check_writable, to_picture
from fuzzyseg.experiment.analyse.inputs import trained_method
from fuzzyseg.experiment.gallery import K_COLOURS, SIDE, save_layer
from fuzzyseg.experiment.load_run import Counter, Factory, run_config, run_folder, run_items, sets_of
from fuzzyseg.experiment.process_group import choose_device
from fuzzyseg.inference import ModelCard, Predictor, load, predict_files
from fuzzyseg.inference.model import replacing_folder
from fuzzyseg.inference.outputs import ANNOTATIONS
from fuzzyseg.inference.outputs.annotations import check_annotations
from fuzzyseg.inference.outputs.rasters import colours_of
from fuzzyseg.inference.predict import find_files
from fuzzyseg.inference.suggest import Candidate, Surveyor, choose
from fuzzyseg.plugins import methods
from fuzzyseg.report.suggestions import write_suggestions

logger = logging.getLogger(__name__)

Measured = tuple[dict[Path, Candidate], list[Exception]]
"""Scored images, and the errors of those that could not be read."""

UNCERTAIN = [(0, 0, 0), *((60 + 13 * n, 10 + 14 * n, 90 - 4 * n) for n in range(1, 16))]
"""Colours for uncertainties 0 (transparent), 1/15, ..., 1."""


def suggest(
    source: str | Path,
    images: Sequence[Path],
    out: Path,
    *,
    count: int = 20,
    export: Sequence[str] = (),
    device: str = "auto",
    network: Factory | None = None,
    progress: Counter | None = None,
) -> tuple[list[dict[str, Any]], list[Exception]]:
    """Select up to `count` images to label next, and write a list and an HTML page to the new folder `out`.

    source: a run folder or a model folder. For a run, images similar to its labelled ones are avoided, and its second
    network, if any, is also used. images: files, folders and patterns; the run's labelled and validation images are
    skipped. export: annotation formats of `predict_files`; the selected images are copied alongside. device, network,
    progress: as in `fuzzyseg.experiment.predict`.

    Returns rank, image, score and its components for each selected image, best first, and an error for each image that
    could not be read. Raises ConfigError, and DataError if there are no images or none can be read; then nothing is
    written.
    """
    if unknown := sorted(set(export) - set(ANNOTATIONS)):
        raise ConfigError(f"--export: found {', '.join(unknown)}; expected some of {', '.join(ANNOTATIONS)}")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ConfigError(f"{out}: exists already; choose another --out")
    check_writable(out)
    source, where = Path(source), choose_device(device)
    predictor, config = load(source, network=network, device=where), run_config(source)
    with pixel_limit(None if config is None else config.data.max_megapixels):
        labelled, val = _labelled(source, config, predictor)
        known = {path.resolve() for path in (*labelled, *val)}
        files = [path for path in find_files(images, out).files if path.resolve() not in known]
        if len(files) < count:
            raise ConfigError(f"-n: found {count}, but only {len(files)} of the images have no label yet; set fewer")
        check_annotations(export, predictor.card, [path.name for path in files])
        networks = [predictor.network, *_second(source, config, predictor.card, network)]
        surveyor = Surveyor(networks, predictor.card, where, sets_of(source, config))
        measured, failures = _measured(surveyor, [*files, *labelled], progress)
        pool, centres = ([measured[file] for file in each if file in measured] for each in (files, labelled))
        if not pool:
            raise DataError(f"none of the {len(files)} images can be read; the first: {failures[0]}")
        val_infos = [info for path in val if (info := inspect_file(path, "image")).problem is None]
        chosen = [pool[place] for place in choose(pool, centres, count, val_infos)]
        if not chosen:
            raise DataError(f"all of the {len(pool)} images are near-duplicates of labelled ones; give others")
        if len(chosen) < count:
            logger.warning("%d of %d suggested: the others are near-duplicates", len(chosen), count)
        rows = [{"rank": n, "image": str(e.info.path), "score": e.score, **e.parts} for n, e in enumerate(chosen, 1)]
        paths = [each.info.path for each in chosen]
        with replacing_folder(out) as part:
            _write_list(part / "suggestions.csv", rows)
            views, legend = _drawn(surveyor, paths), zip(surveyor.card.classes, colours_of(surveyor.card), strict=True)
            write_suggestions(part / "suggestions.html", rows, views, f"Images to label next, by {source}", [*legend])
            if export:
                predict_files(predictor, _copies(paths, part / "images"), part, write=export)
    return rows, failures


def _labelled(source: Path, config: Config | None, predictor: Predictor) -> list[list[Path]]:
    """Return the run's labelled (and held-back) and validation images; warn and return none if the data is missing."""
    if config is None or config.data.root is None or not Path(config.data.root).exists():
        logger.warning("%s: is not in a run folder with its data; suggestions may resemble its training images", source)
        return [[], []]
    train, back, val = (run_items(source, config, predictor, name) for name in ("train", "held_back", "val"))
    return [[item.image for item in items] for items in (train + back, val)]


def _measured(surveyor: Surveyor, files: Sequence[Path], progress: Counter | None) -> Measured:
    measured, failures = dict[Path, Candidate](), list[Exception]()
    for done, file in enumerate(files, 1):
        try:
            measured[file] = surveyor.measure(file)
        except (OSError, ValueError) as error:
            failures.append(error if str(file) in str(error) else DataError(f"{file}: {error}"))
        if progress is not None:
            progress(done, len(files))
    return measured, failures


def _second(source: Path, config: Config | None, card: ModelCard, network: Factory | None) -> list[nn.Module]:
    """Return the second network of a run whose method trains two, in a list; otherwise an empty list."""
    run = run_folder(source)
    if config is None or run is None or methods()[config.method.name].learners < 2:
        return []
    if run.path != source or not run.has_checkpoint:
        logger.warning("the second network is in the run's last.pt: the networks' disagreement is not measured")
        return []
    return [trained_method(run, config, card, network).pair()[1].eval()]


def _drawn(surveyor: Surveyor, files: Sequence[Path]) -> Iterator[dict[str, bytes]]:
    """Yield view -> encoded picture for each file: the image as JPEG; prediction, K and uncertainty as PNG overlays."""
    card = surveyor.card
    palettes: dict[str, Any] = {"prediction": colours_of(card), "k": K_COLOURS, "uncertainty": UNCERTAIN}
    for file in files:
        parts = []
        for band, k, maps in surveyor.maps(file):
            assert band.image is not None
            every = max(1, band.mask.shape[1] // SIDE)
            rows = slice(-band.box[0] % every, None, every)  # every n-th row of the image, perhaps none of the band
            picture = to_picture(band.image, card.mean, card.std)[rows]
            layers = (torch.from_numpy(band.mask), k.clamp(max=len(K_COLOURS)) - 1, maps.mean(0) * (len(UNCERTAIN) - 1))
            thin = (layer[rows, ::every].round().byte().cpu().numpy() for layer in layers)
            parts.append((np.broadcast_to(picture, (*picture.shape[:2], 3)), *thin))
        image, *values = map(np.concatenate, zip(*parts, strict=True))
        written = {view: io.BytesIO() for view in ["image", *palettes]}
        Image.fromarray(image).reduce((every, 1)).save(written["image"], "jpeg", quality=85)
        for (view, palette), layer in zip(palettes.items(), values, strict=True):
            save_layer(written[view], Image.fromarray(layer), palette)
        yield {view: each.getvalue() for view, each in written.items()}


def _write_list(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows({key: f"{v:.4f}" if isinstance(v, float) else v for key, v in row.items()} for row in rows)


def _copies(files: Sequence[Path], folder: Path) -> list[Path]:
    """Copy files to a new folder and return the copies. If two have the same name, all are prefixed with their rank."""
    names = [file.name for file in files]
    if len({name.lower() for name in names}) < len(names):
        names = [f"{rank:03}_{name}" for rank, name in enumerate(names, 1)]
    folder.mkdir()
    return [Path(shutil.copyfile(file, folder / name)) for file, name in zip(files, names, strict=True)]
