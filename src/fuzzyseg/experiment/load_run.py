"""Evaluation and prediction with trained models."""

import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fuzzyseg.analysis.pixels import PixelMaps, pixel_maps
from fuzzyseg.analysis.temperature import judged
from fuzzyseg.config import Config, ConfigError, read_yaml, validate
from fuzzyseg.data import DataError, DataSet, Item, read_dataset
from fuzzyseg.data.io.pillow import pixel_limit
from fuzzyseg.data.io.write import Unwritable
from fuzzyseg.data.labels.resolve import UNDECLARED
from fuzzyseg.data.loading.value_range import header_notes
from fuzzyseg.data.text import printable
from fuzzyseg.experiment.gallery import reliability, write_evaluation
from fuzzyseg.experiment.own_dataset import find_dataset, write_dataset
from fuzzyseg.experiment.prepare_data import read_configured
from fuzzyseg.experiment.process_group import choose_device, process_group
from fuzzyseg.experiment.results import record
from fuzzyseg.experiment.validation import CROSS_FITTED, pixels_of_groups, training_pairs
from fuzzyseg.inference import Predictor, load, predict_files
from fuzzyseg.inference import evaluate as score
from fuzzyseg.inference.outputs import Fuzzy
from fuzzyseg.ops import distributed
from fuzzyseg.plugins import metrics
from fuzzyseg.run.files import fingerprint
from fuzzyseg.run.folder import RunFolder

logger = logging.getLogger(__name__)

Factory = Callable[[], nn.Module]
Counter = Callable[[int, int], None]


def evaluate(
    source: str | Path,
    *,
    data: str | Path | None = None,
    split: str | None = None,
    mode: str | None = None,
    device: str = "auto",
    gallery: int | None = None,
    network: Factory | None = None,
    progress: Counter | None = None,
) -> dict[str, Any]:
    """Evaluate a run's last weights, or a model folder's weights, at the original image size.

    Args:
        source: a run folder or a model folder.
        data: folder with images and masks, or the name of an imported dataset. Default: the run's data.
        split: val, test or train. For the run's data, these are the run's lists (train: the labelled images). Default:
            val, or all images if the folder has no validation split.
        mode: whole or sliding. Default: the run's mode.
        device: auto, cpu, cuda, cuda:N or mps.
        gallery: number of images to store in the run folder for `fuzzyseg report`, with the confusion matrix and
            calibration; they replace those stored during training. None: store nothing.
        network: factory for the custom network, if the model has one.
        progress: called with (images done, images in total).

    Returns:
        The result of `fuzzyseg.inference.evaluate`, plus `data`, `split` and `calibration`. Under torchrun, the
        processes divide the images: call it on all of them.

    Raises:
        ConfigError, DataError: the settings or the data are invalid.
    """
    where = choose_device(device)
    predictor = load(source, network=network, device=where)
    config, run = run_config(Path(source)), run_folder(Path(source))
    if gallery is not None and run is None:
        raise ConfigError(f"{source}: is a model without a run; --gallery stores its pictures in a run folder")
    settings = config or Config()
    with pixel_limit(settings.data.max_megapixels), process_group(where), tempfile.TemporaryDirectory() as folder:
        if (custom := find_dataset(None if data is None else str(data))) is not None:
            data = write_dataset(custom, Path(folder) / str(data))
        card = predictor.card
        items, split, void, place = _items(Path(source), data, predictor, config, split)
        _warn(*header_notes(items), *card.range_warnings(items))
        chosen = settings.evaluate.model_copy(update={"gallery": gallery or 0})
        chosen.mode = mode or chosen.mode  # type: ignore[assignment]
        counts: list[Any] = []
        call = chosen.model_dump(exclude={"diagnose", "gallery"}) | {"metrics": metrics(), "progress": progress}
        result = score(predictor, items, ignore_index=void, keep=lambda *c: counts.append(c), **call)
        result["calibration"] = _calibration(predictor, items, void, settings.data.group)
        if run is not None and config is not None and gallery is not None:
            maps = partial(_pixel_maps, predictor, sets_of(Path(source), config), void)
            known = run.evaluation_dir, predictor, items, counts[0], maps, result, chosen, void
            quality = reliability(items, maps)
            try:
                if distributed.rank() == 0:
                    write_evaluation(*known, quality, step=card.step, split=split)
            except OSError as error:
                raise Unwritable(run.evaluation_dir, error, "it is unchanged: free disk space and retry") from None
    return {"data": place, "split": split, **result}


def _calibration(predictor: Predictor, items: list[Item], void: int, group: str | None) -> dict[str, Any]:
    """Return the temperature, what it was fitted on, and the calibration (`judged`) of some of the items.

    Uses cross-fitting instead of the model's temperature if that was fitted on any of these items. Models saved by
    earlier versions do not record these images; they are cross-fitted if the temperature was.
    """
    card = predictor.card
    images, middle, used = pixels_of_groups(predictor, card.reader(void, image_size=card.image_size), items, group)
    fitted = (card.record or {}).get("calibration") or {}
    fitted_on, files = fitted.get("fitted_on"), fitted.get("files")
    crossed = fitted_on == CROSS_FITTED if files is None else any(fingerprint(image) in files for image in used)
    result = judged(images, None if crossed else card.temperature, card.classes, middle)
    fitted_on = f"{fitted_on}; here cross-fitted" if crossed and fitted_on != CROSS_FITTED else fitted_on
    return {"temperature": card.temperature, "fitted_on": fitted_on, **result}


def _items(
    source: Path, data: str | Path | None, predictor: Predictor, config: Config | None, split: str | None
) -> tuple[list[Item], str, int, str]:
    """Return the split's images with masks, its name, the ignore index, and the data folder."""
    void = predictor.card.ignore_index
    root = None if config is None or config.data.root is None else Path(config.data.root).resolve()
    if data is not None and (split is not None or Path(data).resolve() != root):
        dataset, where = read_for(Path(data), predictor, config), str(data)
        _warn(*(note for note in dataset.notes if "not read as" in note or UNDECLARED in note))
        split, void = split or ("all" if dataset.val is None else "val"), dataset.ignore_index
        items = dataset.items if split == "all" else split_of(dataset, split)
    elif config is not None and config.data.root is not None:
        split = split or "val"
        items, where = run_items(source, config, predictor, split), config.data.root
    else:
        raise ConfigError(f"{source}: is a model without a run, so its data is unknown; give --data DIR")
    items = [item for item in items if item.mask is not None]
    if not items:
        raise DataError(f"{where}: no image of split {split!r} has a mask; choose another --split or --data")
    return items, split, void, where


def _pixel_maps(predictor: Predictor, sets: Fuzzy, void: int, item: Item) -> Iterator[tuple[PixelMaps, Tensor]]:
    """Yield maps and mask (1,H,W) for each of the item's `training_parts`, using the run's final T."""
    card = predictor.card
    for logits, target in training_pairs(predictor, card.reader(void, image_size=card.image_size), item):
        yield pixel_maps(logits, logits, target, threshold=sets.threshold, options=sets.options, lift=False), target


def predict(
    source: str | Path,
    images: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    write: Sequence[str] = ("mask", "overlay"),
    max_megapixels: int | None = None,
    device: str = "auto",
    network: Factory | None = None,
    progress: Counter | None = None,
    ray: int | None = None,
    **options: Any,
) -> tuple[list[Path], list[DataError]]:
    """Segment image files. Returns the files written and one error for each image that could not be predicted.

    Under torchrun, the images are split across the processes. The outputs `k` and `sets` use the run's T and loss
    options. max_megapixels: largest image to decode whole. Default: the run's setting. device, network, progress: as in
    `evaluate`. ray: number of Ray workers. write, options: as in `fuzzyseg.inference.predict_files`.
    """
    where = choose_device(device)
    predictor, config = load(source, network=network, device=where), run_config(Path(source))
    if max_megapixels is None and config is not None:
        max_megapixels = config.data.max_megapixels
    if ray is not None:
        from fuzzyseg.integrations.ray import ray_workers

        options["spread"] = ray_workers(ray, max_megapixels)
    files = [Path(each) for each in ([images] if isinstance(images, str | Path) else images)]
    with pixel_limit(max_megapixels), process_group(where):
        if {"k", "sets"} & set(write):
            options["fuzzy"] = sets_of(Path(source), config)
        return predict_files(predictor, files, Path(out), write=write, progress=progress, **options)


def _warn(*notes: str) -> None:
    """Log warnings that are the same on all processes, on the first one only."""
    if distributed.rank() == 0:
        for note in notes:
            logger.warning(printable(note))


def sets_of(source: Path, config: Config | None) -> Fuzzy:
    """Return the run's final T and loss options, or the paper's for a model folder without a run."""
    from fuzzyseg.experiment.analyse.inputs import fuzzy_sets  # imports this module

    options, threshold, notes = fuzzy_sets(config, None, None, run_folder(source))
    _warn(*notes)
    assert threshold is not None
    return Fuzzy(threshold, options)


def run_folder(source: Path) -> RunFolder | None:
    """Return the run whose folder, or model/ or best/ folder, is `source`; None if there is none."""
    for folder in (source, source.parent):
        run = RunFolder(folder)
        if run.config.is_file() and run.split.is_file():
            return run
    return None


def run_config(source: Path) -> Config | None:
    """Return the settings of `run_folder(source)`, if it exists."""
    run = run_folder(source)
    if run is None:
        return None
    values = read_yaml(run.config)
    try:
        return validate(values)
    except ConfigError as error:
        raise ConfigError(f"{run.config}: {error}") from None


def read_for(root: Path, predictor: Predictor, config: Config | None) -> DataSet:
    """Read a dataset. A declared mask encoding overrides the model's. Raises ConfigError if the classes differ."""
    card = predictor.card
    if config is not None and config.data.root is not None and Path(config.data.root).resolve() == root.resolve():
        # As in training, declared metadata overrides the model's, because other roots may order classes differently.
        # Encodings detected in training are not detected again. Images without masks are not scored and may be missing.
        dataset = read_configured(config.data, fallback=card.label_map, unlabelled=False)
    else:
        dataset = read_dataset(root, fallback=card.label_map, snap=config is not None and config.data.snap)
    prefix = "warning: "
    _warn(*(f"{root}: {note.removeprefix(prefix)}" for note in dataset.notes if note.startswith(prefix)))
    if dataset.classes != card.classes:
        raise ConfigError(
            f"{root}: its classes are {', '.join(dataset.classes)}, those of the model {', '.join(card.classes)}; "
            "expected the same names in the same order: adapt dataset.yaml and the masks to the model's order"
        )
    return dataset


def split_of(dataset: DataSet, split: str) -> list[Item]:
    """Return the items of train, val or test. Raises DataError if the dataset has no such split."""
    lists = {"train": dataset.train, "val": dataset.val, "test": dataset.test}
    items = lists[split]
    if items is None:
        available = ", ".join(name for name, list_items in lists.items() if list_items)
        raise DataError(f"{dataset.root}: has no {split} folder; found {available}: choose one of them with --split")
    return items


def run_items(source: Path, config: Config, predictor: Predictor, split: str) -> list[Item]:
    """Return the images in one list of the run's split.json (train: the labelled images). Raises DataError."""
    run = run_folder(source)
    assert run is not None and config.data.root is not None
    dataset = read_for(Path(config.data.root), predictor, config)
    all_items = [*dataset.train, *(dataset.val or []), *(dataset.test or [])]
    names = record(run).get({"train": "labelled"}.get(split, split), [])
    known = {item.name: item for item in all_items}
    gaps = [name for name in names if name not in known]
    if gaps:
        raise DataError(f"{config.data.root}: lacks {len(gaps)} images of the run's {split} list, such as {gaps[0]!r}")
    return [known[name] for name in names]
