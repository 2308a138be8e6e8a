"""What is analysed: a teacher and a student, the sets that the loss gives, and lists of images."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from fuzzyseg.config import Config, ConfigError
from fuzzyseg.data import DataError, Item, Reader
from fuzzyseg.engine import checkpoint
from fuzzyseg.experiment.build import build_method, resolve
from fuzzyseg.experiment.load_run import read_for, run_config, run_folder, run_items, split_of
from fuzzyseg.experiment.process_group import choose_device
from fuzzyseg.experiment.results import record, without_files
from fuzzyseg.experiment.threshold_policy import UNKNOWN, as_written
from fuzzyseg.experiment.validation import set_options, spread, thresholds_at
from fuzzyseg.inference import ModelCard, Predictor, load
from fuzzyseg.losses import ConfidentPixels, PixelLossModule
from fuzzyseg.losses.fpl.options import SetOptions
from fuzzyseg.methods import Facts, Method
from fuzzyseg.run.folder import RunFolder

Factory = Callable[[], nn.Module]

UNLABELLED = "unlabelled"


@dataclass
class Subject:
    """Everything that the measurement needs. Logits are those of whole images at the training scale, or
    of tiles where an image is too large to be decoded whole.

    roles: who teacher and student are, in words. fixed: T, where it is one number. confidence: from which on a pixel is
    confident, where the method asks. lists: name -> images with masks.
    validation: all of the run's own, in its order. run: the folder of the run, None for a model alone. notes: sentences
    that the user has to know.
    """

    source: str
    card: ModelCard
    teacher: Predictor
    student: Predictor
    roles: dict[str, str]
    loss: str
    options: SetOptions
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
        """The list that examples are taken from: the unlabelled images where they are looked at, else the first."""
        return UNLABELLED if UNLABELLED in self.lists else next(iter(self.lists))

    def tempered(self, logits: Tensor) -> Tensor:
        """The teacher's logits (1,C,H,W) over the temperature that the run fitted, if any."""
        found = logits if self.pixel_loss is None else self.pixel_loss.tempered(logits)
        assert isinstance(found, Tensor)
        return found

    def threshold(self, logits: Tensor) -> float | Tensor:
        """T for the teacher's logits (1,C,H,W)."""
        if self.fixed is not None:
            return self.fixed
        assert self.pixel_loss is not None
        return thresholds_at(self.pixel_loss, logits, self.teacher.network)


def subject_of(
    source: Path,
    *,
    data: Path | None,
    threshold: float | None,
    unlabelled_masks: bool,
    limit: int | None,
    device: str,
    network: Factory | None,
) -> Subject:
    """Reads a run folder or a model folder, and the images to look at. Raises ConfigError, DataError."""
    where = choose_device(device)
    predictor = load(source, network=network, device=where)
    card, run, config = predictor.card, run_folder(source), run_config(source)
    settings = config or Config()
    if threshold is not None and not 0 < threshold <= 1:
        raise ConfigError(f"--threshold: found {threshold}; expected a number in (0, 1]")
    lists, void, notes = _lists(source, data, predictor, config, unlabelled_masks)
    method = None
    if run is not None and run.path == source and run.has_checkpoint:
        method = _trained(run, settings, card, network)
    if method is not None:
        student, teacher = (Predictor(each.eval(), card, where) for each in method.pair())
    else:
        student = teacher = predictor
    roles, more = _roles(source, method, student is teacher or student.network is teacher.network)
    pixel_loss = method.pixel_loss if method is not None else None
    pixel_loss = pixel_loss if isinstance(pixel_loss, PixelLossModule) else None
    options, fixed, said = _sets(config, threshold, pixel_loss, run)
    validation = lists.get("val", []) if run is not None and data is None else []
    if limit is not None:
        for name, items in lists.items():
            if len(items) > limit:
                lists[name] = [items[place] for place in spread(len(items), limit)]
                notes.append(f"{name}: {limit} of {len(items)} images, evenly spread")
    return Subject(
        str(source),
        card,
        teacher,
        student,
        roles,
        card.loss or "unknown",
        options,
        fixed,
        pixel_loss,
        method.confident.threshold if method is not None and isinstance(method.confident, ConfidentPixels) else None,
        Reader(
            card.channels,
            len(card.classes),
            void,
            card.image_size,
            bands=None if card.bands is None else tuple(card.bands),
            levels=card.levels,
            megapixels=settings.data.max_megapixels,
        ),
        lists,
        validation,
        run,
        [*notes, *more, *said],
    )


def _lists(
    source: Path, data: Path | None, predictor: Predictor, config: Config | None, unlabelled_masks: bool
) -> tuple[dict[str, list[Item]], int, list[str]]:
    """The images by list, the masks' value for void, and notes."""
    own = config is not None and config.data.root is not None
    if data is not None and own and config is not None and Path(str(config.data.root)).resolve() == data.resolve():
        data = None  # the lists of the run itself: no image that it was trained on counts as validation
    notes = []
    if data is None:
        if not own or config is None:
            raise ConfigError(f"{source}: is a model alone and knows no data; give --data DIR")
        void = predictor.card.ignore_index
        lists = {"val": run_items(source, config, predictor, "val")}
        if (source / "config.yaml").is_file() or not lists["val"]:  # of a model alone: what it has not learnt
            lists["labelled"] = run_items(source, config, predictor, "train")
        if unlabelled_masks:
            lists[UNLABELLED] = run_items(source, config, predictor, UNLABELLED)
            notes.append(
                "DIAGNOSIS WITH HIDDEN MASKS: masks of the images that the training took as unlabelled were read, as "
                "asked for; nothing that is chosen by these numbers is semi-supervised any more"
            )
    else:
        if unlabelled_masks:
            raise ConfigError("--unlabelled-masks: goes with a run and its own data, not with --data")
        dataset = read_for(data, predictor, config)
        void, name = dataset.ignore_index, "val"
        if dataset.val is None:
            name = "train"
            notes.append(
                f"{data}: has no val folder; all its images with masks are looked at, also if the model knows them"
            )
        lists = {name: split_of(dataset, name)}
    lists = {name: [item for item in items if item.mask is not None] for name, items in lists.items()}
    lists = {name: items for name, items in lists.items() if items}
    if not lists:
        raise DataError(f"{data or source}: no image with a mask to look at; add masks, or name another --data")
    return lists, void, notes


def _trained(run: RunFolder, config: Config, card: ModelCard, network: Factory | None) -> Method:
    """The method of the run as its last checkpoint has it."""
    state = checkpoint.load(run.last_pt)
    begun = without_files(config, run)
    names = [name.lower() for name in card.classes]
    lists = record(run)
    images = {"labelled": len(lists["labelled"]), UNLABELLED: len(lists[UNLABELLED])}
    images["all"] = images["labelled"] + images[UNLABELLED]
    facts = Facts(len(names), card.channels, names.index("background") if "background" in names else None, images)
    with torch.random.fork_rng(devices=[]):
        method = build_method(resolve(begun), facts, network)
    try:
        method.load_state_dict(state["modules"]["method"])
    except RuntimeError as error:
        raise DataError(
            f"{run.last_pt}: does not fit the method of {run.config} ({str(error).splitlines()[0]}); analyse "
            f"{run.model_dir} instead, or use the version of fuzzyseg that wrote it"
        ) from None
    return method


def _roles(source: Path, method: Method | None, same: bool) -> tuple[dict[str, str], list[str]]:
    """Who teacher and student are, in words; a note where they are one network."""
    if method is None:
        who = f"the network in {source}"
        note = "teacher and student are one network (no last.pt, which would have both)"
        return {"teacher": who, "student": who}, [f"{note}: scores and gradients are those of a network on itself"]
    if same:
        who = "the network as last.pt has it"
        return {"teacher": who, "student": who}, ["teacher and student are one network, as in this method"]
    return {
        "teacher": "the network whose logits give the sets, as last.pt has it",
        "student": "the network that learns from them, as last.pt has it",
    }, []


def _sets(
    config: Config | None, threshold: float | None, pixel_loss: PixelLossModule | None, run: RunFolder | None
) -> tuple[SetOptions, float | None, list[str]]:
    """Options of the fuzzy loss, T where it is one number, and notes. config, run: None for a model alone."""
    loss, notes = (config or Config()).loss, []
    if config is not None:
        name = resolve(config).pixel_loss
        if name != "fuzzy":
            how = "without a pseudo-label loss" if name is None else f"with the loss {name}"
            notes.append(f"trained {how}: shown is what FPL would make of the same logits")
        elif loss.balance:
            notes.append("the scale of loss.balance, one number a step, is left out of the gradients")
    if threshold is None and pixel_loss is not None:
        each = loss.policy == "adaptive" or pixel_loss.threshold.dim() > 0
        threshold = None if each else as_written(pixel_loss.threshold)
    elif threshold is None:
        ended = UNKNOWN if loss.policy in ("adaptive", "conformal") else _ended_with(run)
        threshold = loss.threshold if isinstance(loss.threshold, float) else ended
        if loss.policy == "adaptive":
            notes.append(f"T of each pixel, as in the training, needs the run's last.pt; shown is T = {threshold:g}")
    if loss.policy == "conformal":
        if pixel_loss is None:
            notes.append("the temperature, and T with it, need the run's last.pt; shown are the logits as they are")
        else:
            notes.append(f"the teacher's logits are divided by a temperature of {as_written(pixel_loss.temperature):g}")
    return set_options(loss), threshold, notes


def _ended_with(run: RunFolder | None) -> float:
    """T as the finished run has it in result.json, for one whose last.pt is not looked at."""
    found = json.loads(run.result.read_text(encoding="utf-8")) if run is not None and run.result.is_file() else {}
    return float((found.get("threshold") or {}).get("value", UNKNOWN))
