"""Inputs of `analyse`: teacher and student, the options of the fuzzy sets, and lists of images."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fuzzyseg.config import Config, ConfigError
from fuzzyseg.data import DataError, Item, Reader
from fuzzyseg.engine import checkpoint
from fuzzyseg.experiment.build import build_method, resolve
from fuzzyseg.experiment.load_run import read_for, run_config, run_folder, run_items, split_of
from fuzzyseg.experiment.prepare_data import facts_of
from fuzzyseg.experiment.process_group import choose_device
from fuzzyseg.experiment.results import record
from fuzzyseg.experiment.threshold_policy import UNKNOWN, as_written
from fuzzyseg.experiment.validation import evenly_spaced, set_options, thresholds_at
from fuzzyseg.inference import ModelCard, Predictor, load
from fuzzyseg.losses import ConfidentPixels, PixelLossModule
from fuzzyseg.losses.fpl.options import FPLOptions
from fuzzyseg.methods import Method
from fuzzyseg.methods.base import Network
from fuzzyseg.run.folder import RunFolder

UNLABELLED = "unlabelled"


@dataclass
class Inputs:
    """Inputs of the measurement. Logits are computed for whole images at training scale, or for tiles of large ones.

    roles: descriptions of teacher and student. fixed: T if it is a single number. confidence: the method's confidence
    threshold, if any. lists: name -> images with masks. validation: all validation images of the run, in order. run:
    the run folder; None for a model without a run. notes: messages for the user.
    """

    source: str
    card: ModelCard
    teacher: Predictor
    student: Predictor
    roles: dict[str, str]
    options: FPLOptions
    fixed: float | None
    pixel_loss: PixelLossModule | None
    confidence: float | None
    reader: Reader
    lists: dict[str, list[Item]]
    validation: list[Item]
    run: RunFolder | None
    notes: list[str]

    @property
    def shown(self) -> str:
        """Name of the list that examples come from: the unlabelled images if included, otherwise the first list."""
        return UNLABELLED if UNLABELLED in self.lists else next(iter(self.lists))

    def tempered(self, logits: Tensor) -> Tensor:
        """Divide the teacher's logits (1,C,H,W) by the temperature fitted in the run, if any."""
        return logits if self.pixel_loss is None else self.pixel_loss.tempered(logits)

    def threshold(self, logits: Tensor) -> float | Tensor:
        """Return T for the teacher's logits (1,C,H,W)."""
        if self.fixed is not None:
            return self.fixed
        assert self.pixel_loss is not None
        return thresholds_at(self.pixel_loss, logits, self.teacher.network)


def read_inputs(
    source: Path,
    data: Path | None,
    threshold: float | None,
    unlabelled_masks: bool,
    limit: int | None,
    device: str,
    network: Network | None,
) -> Inputs:
    """Load a run or model folder and list the images. Arguments as in `analyse`. Raises ConfigError, DataError."""
    if threshold is not None and not 0 < threshold <= 1:
        raise ConfigError(f"--threshold: found {threshold}; expected a number in (0, 1]")
    where = choose_device(device)
    predictor = load(source, network=network, device=where)
    card, run, config = predictor.card, run_folder(source), run_config(source)
    lists, void, notes = _lists(source, data, predictor, config, unlabelled_masks)
    method = None
    if run is not None and run.path == source and run.has_checkpoint:
        method = trained_method(run, config or Config(), card, network)
    student = teacher = predictor
    pixel_loss = None
    if method is not None:
        student, teacher = (Predictor(each.eval(), card, where) for each in method.pair())
        pixel_loss = method.pixel_loss if isinstance(method.pixel_loss, PixelLossModule) else None
    roles, more = _roles(source, method, student.network is teacher.network)
    options, fixed, others = fuzzy_sets(config, threshold, pixel_loss, run)
    validation = lists.get("val", []) if run is not None and data is None else []
    for name, items in lists.items():
        if limit is not None and len(items) > limit:
            lists[name] = evenly_spaced(items, limit)
            notes.append(f"{name}: {limit} of {len(items)} images, evenly spaced")
    confident = method.confident if method is not None else None
    return Inputs(
        str(source),
        card,
        teacher,
        student,
        roles,
        options,
        fixed,
        pixel_loss,
        confident.threshold if isinstance(confident, ConfidentPixels) else None,
        card.reader(void, image_size=card.image_size, megapixels=(config or Config()).data.max_megapixels),
        lists,
        validation,
        run,
        [*notes, *more, *others],
    )


def _lists(
    source: Path, data: Path | None, predictor: Predictor, config: Config | None, unlabelled_masks: bool
) -> tuple[dict[str, list[Item]], int, list[str]]:
    """Return the images by list, the ignore index of the masks, and notes."""
    root = None if config is None else config.data.root
    if data is not None and root is not None and Path(root).resolve() == data.resolve():
        data = None  # use the run's lists, so that no training image counts as validation
    notes = []
    if data is None:
        if root is None or config is None:
            raise ConfigError(f"{source}: is a model without a run, so its data is unknown; give --data DIR")
        void = predictor.card.ignore_index
        lists = {"val": run_items(source, config, predictor, "val")}
        if (source / "config.yaml").is_file() or not lists[
            "val"
        ]:  # a model folder: only images that it was not trained on
            lists["labelled"] = run_items(source, config, predictor, "train")
        if unlabelled_masks:
            lists[UNLABELLED] = run_items(source, config, predictor, UNLABELLED)
            notes.append(
                "UNUSED MASKS: masks of images that were unlabelled in training were read, as requested; choices "
                "based on these numbers are no longer semi-supervised"
            )
    else:
        if unlabelled_masks:
            raise ConfigError("--unlabelled-masks: works only with the run's own data; omit --data")
        dataset = read_for(data, predictor, config)
        void, name = dataset.ignore_index, "val"
        if dataset.val is None:
            name = "train"
            notes.append(f"{data}: no val folder; all images with masks are used, including any training images")
        lists = {name: split_of(dataset, name)}
    lists = {name: [item for item in items if item.mask is not None] for name, items in lists.items()}
    lists = {name: items for name, items in lists.items() if items}
    if not lists:
        raise DataError(f"{data or source}: no image with a mask; add masks or choose another --data")
    return lists, void, notes


def trained_method(run: RunFolder, config: Config, card: ModelCard, network: Network | None) -> Method:
    """Return the run's method with the state of its last checkpoint."""
    state, lists = checkpoint.load(run.last_pt), record(run)
    images = {name: len(lists[name]) for name in ("labelled", UNLABELLED)}
    images["all"] = sum(images.values())
    with torch.random.fork_rng(devices=[]):
        method = build_method(resolve(config, network=network).resumed(), facts_of(card, images))
    try:
        method.load_state_dict(state["modules"]["method"])
    except RuntimeError as error:
        raise DataError(
            f"{run.last_pt}: does not fit the method of {run.config} ({str(error).splitlines()[0]}); analyse "
            f"{run.model_dir} instead, or use the version of fuzzyseg that wrote it"
        ) from None
    return method


def _roles(source: Path, method: Method | None, same: bool) -> tuple[dict[str, str], list[str]]:
    """Return descriptions of teacher and student, and a note if they are the same network."""
    if method is not None and not same:
        teacher, student = "the network whose logits give the sets", "the network that learns from them"
        return {"teacher": f"{teacher}, from last.pt", "student": f"{student}, from last.pt"}, []
    network, note = "the network in last.pt", "student = teacher, as in this method"
    if method is None:
        network = f"the network in {source}"
        note = "student = teacher, since there is no last.pt: the scores compare a network with its own sets"
    return {"teacher": network, "student": network}, [note]


def fuzzy_sets(
    config: Config | None, threshold: float | None, pixel_loss: PixelLossModule | None, run: RunFolder | None
) -> tuple[FPLOptions, float | None, list[str]]:
    """Return options of the fuzzy loss, T if it is a single number, and notes. config, run: None without a run."""
    loss, notes = (config or Config()).loss, []
    if config is not None:
        name = resolve(config).pixel_loss
        if name != "fuzzy":
            source = "without a pseudo-label loss" if name is None else f"with the loss {name}"
            notes.append(f"trained {source}: the sets are those that FPL would have built from the same logits")
        elif loss.balance:
            notes.append("gradients are without the scale of loss.balance, one number per step")
    if threshold is None and pixel_loss is not None:
        each = loss.policy == "adaptive" or pixel_loss.threshold.dim() > 0
        threshold = None if each else as_written(pixel_loss.threshold)
    elif threshold is None:
        ended = UNKNOWN if loss.policy in ("adaptive", "conformal") else _ended_with(run)
        threshold = loss.threshold if isinstance(loss.threshold, float) else ended
        if loss.policy == "adaptive":
            notes.append(f"T of each pixel, as in training, needs the run's last.pt; using T = {threshold:g}")
    if loss.policy == "conformal":
        if pixel_loss is None:
            notes.append("temperature and T need the run's last.pt; using logits without temperature")
        else:
            notes.append(f"the teacher's logits are divided by a temperature of {as_written(pixel_loss.temperature):g}")
    return set_options(loss), threshold, notes


def _ended_with(run: RunFolder | None) -> float:
    """Return T from the run's result.json, for a run without last.pt."""
    result = run.read(run.result) if run is not None and run.result.is_file() else {}
    record = result.get("threshold")
    value = record.get("value", UNKNOWN) if isinstance(record, dict) else UNKNOWN
    return float(value) if isinstance(value, int | float) else UNKNOWN
