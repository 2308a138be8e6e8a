"""Distillation of a trained model: stores its predictions for the unlabelled images and trains a student on them."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fuzzyseg.config import Config, ConfigError, settings_from
from fuzzyseg.data import DataError, Item
from fuzzyseg.data.io.pillow import pixel_limit
from fuzzyseg.data.io.scores import scores_file, write_scores
from fuzzyseg.data.io.write import check_writable
from fuzzyseg.data.loading.reader import LazyReader
from fuzzyseg.data.transforms.lazy import Large
from fuzzyseg.experiment.build import resolve
from fuzzyseg.experiment.calibration import with_held_back
from fuzzyseg.experiment.load_run import Factory, run_config, run_folder
from fuzzyseg.experiment.prepare_data import gather_material
from fuzzyseg.experiment.process_group import choose_device, process_group
from fuzzyseg.experiment.results import absolute_paths
from fuzzyseg.experiment.train import RunResult, train
from fuzzyseg.inference import Predictor, load
from fuzzyseg.inference.outputs.record import Record, checksum, state_of
from fuzzyseg.networks import check_names
from fuzzyseg.ops import distributed
from fuzzyseg.ops.resize import resize_logits

log = logging.getLogger(__name__)

INHERITED = ("data", "augment", "supervised")
"""Sections that a student inherits from its teacher, besides `train.crop`, `train.batch` and `network.channels`."""


def defaults(teacher: str | Path) -> dict[str, Any]:
    """Return a student's default settings from the teacher's run. Raises ConfigError for a model without a run."""
    run, config = run_folder(Path(teacher)), run_config(Path(teacher))
    if run is None or config is None:
        raise ConfigError(f"{teacher}: is not a run folder; a student is trained on the data of its teacher's run")
    values = config.model_dump(mode="json")
    kept = {name: values[name] for name in INHERITED}
    if kept["data"]["split_seed"] is None:  # the same labelled images for every student seed
        kept["data"]["split_seed"] = values["seed"]
    kept["train"] = {name: values["train"][name] for name in ("crop", "batch")}
    kept["network"] = {"channels": values["network"]["channels"]}
    kept["method"] = {"name": "distill"}
    return kept


def distill(
    teacher: str | Path,
    config: Config | Mapping[str, Any] | None = None,
    *,
    labels: str | Path | None = None,
    resume: bool = False,
    quiet: bool = False,
    teacher_network: Factory | None = None,
    progress: Callable[[int, int], None] | None = None,
    **given: Any,
) -> RunResult:
    """Train a student on a trained model's predictions for the unlabelled images.

    Args:
        teacher: a run folder, or its model/ or best/ folder.
        config: the student's settings. Default: `defaults(teacher)`.
        labels: folder for the predictions. Several teachers can share it, since each has a separate subfolder. Default:
            `<out>.labels`. Existing predictions for unchanged images are reused.
        resume, quiet, given: as in `train`.
        teacher_network: factory for the teacher's network, if it is a custom one.
        progress: called with (images done, images in total) while the teacher predicts.

    Raises:
        ConfigError, DataError: the settings or the data are invalid (both are ValueErrors).
    """
    settings = settings_from(defaults(teacher) if config is None else config, given)
    if settings.out is None:
        raise ConfigError("--out: not given; give the student's run folder, such as --out runs/student")
    if settings.method.name != "distill":
        raise ConfigError(
            f"method.name: found {settings.method.name!r}, which does not read stored predictions; use distill"
        )
    settings = absolute_paths(settings)
    folder = Path(labels if labels is not None else f"{Path(str(settings.out))}.labels").absolute()
    device = choose_device(settings.train.device)
    setup = resolve(settings)
    check_names(settings.network.arch, settings.network.encoder)
    check_writable(folder)
    with process_group(device), pixel_limit(settings.data.max_megapixels):  # `train` reuses this group
        predictor = load(teacher, network=teacher_network, device=device)
        material = with_held_back(setup, gather_material(settings.data, setup, settings.seed))
        if material.card.classes != predictor.classes:
            raise ConfigError(
                f"{teacher}: its classes are {', '.join(predictor.classes)}, those of the data "
                f"{', '.join(material.card.classes)}; expected the same classes in the same order"
            )
        folder /= checksum(predictor)[:12]  # identifies the teacher in the student's settings
        _store(predictor, material.split.unlabelled, folder, progress)
        settings.data.scores = str(folder)
        return train(settings, resume=resume, quiet=quiet)


def _store(predictor: Predictor, items: list[Item], folder: Path, progress: Callable[[int, int], None] | None) -> None:
    """Predict the items that have no stored prediction, split across the processes of torchrun."""
    card, stride = predictor.card, predictor.stride()
    reader = LazyReader(card.reader(image_size=card.image_size))
    record = Record(folder, {"model": checksum(predictor)}, overwrite=False, advice="choose another --labels")
    part = items[distributed.rank() :: distributed.world_size()]
    for number, item in enumerate(part, 1):
        state, path = state_of(item.image), scores_file(folder, item)
        name = path.relative_to(folder).as_posix()
        if record.complete(name, item.image) is None:
            logits = _reduced(predictor, reader.read(item, with_mask=False)[0], stride)
            if not logits.isfinite().all():
                raise DataError(f"{item.image}: the teacher's prediction is not finite; choose another checkpoint")
            write_scores(path, logits / card.temperature)
            record.add(name, file=state, outputs=[name])
        if progress is not None:
            progress(number, len(part))
    distributed.barrier()
    if distributed.rank() == 0:
        record.gather()
    distributed.barrier()


def _reduced(predictor: Predictor, image: Tensor | Large, stride: float) -> Tensor:
    """Return logits (C,h,w) of an image (Cin,H,W) at the stride. A large image is downsampled in bands."""
    size = (image.shape[-2], image.shape[-1])
    height, width = (max(1, round(side / stride)) for side in size)
    if isinstance(image, Tensor) and predictor.reads_by_windows(size):
        array = image.movedim(0, -1).numpy()
        image = Large(tuple(image.shape), lambda box: array[box[0] : box[2], box[1] : box[3]])
    if isinstance(image, Large):
        bands = (p.clamp_min(torch.finfo(p.dtype).tiny).log() for _, p in predictor.probability_rows(image.read, size))
        logits = torch.cat([resize_logits(z[None], (z.shape[1], width), align_corners=False) for z in bands], 2)
    else:
        logits = predictor.batch_logits(image.unsqueeze(0))
    return resize_logits(logits, (height, width), align_corners=False)[0]
