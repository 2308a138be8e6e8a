"""Preparation of a training run: data, method, loader and evaluation, and the checkpoint to resume from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from fuzzyseg import plugins
from fuzzyseg.config import Config, ConfigError
from fuzzyseg.data.loading.loader import Loader
from fuzzyseg.engine import checkpoint
from fuzzyseg.engine.trainer import Batches
from fuzzyseg.experiment import results
from fuzzyseg.experiment.announce import announce
from fuzzyseg.experiment.build import Setup, build_method, notes_of
from fuzzyseg.experiment.calibration import Calibration, with_held_back
from fuzzyseg.experiment.prepare_data import Material, build_loader, build_reader, gather_material
from fuzzyseg.experiment.threshold_policy import threshold_record
from fuzzyseg.experiment.validation import Scoring
from fuzzyseg.losses import PixelLossModule
from fuzzyseg.methods import Method
from fuzzyseg.run.folder import RunFolder

RESUMABLE = results.WITHOUT_EFFECT | {"train.steps", "train.k_maps"}
"""Settings that may be changed when resuming a run."""


@dataclass
class Training:
    """Everything that is built before the first step. state: the checkpoint to resume from, if any."""

    setup: Setup
    material: Material
    method: Method
    loader: Loader
    batches: Batches
    scoring: Scoring
    notes: list[str]
    state: dict[str, Any] | None

    def threshold(self) -> dict[str, Any] | None:
        """Return source and current value of T; None if the loss does not use it."""
        loss, setup = self.scoring.pixel_loss, self.setup
        return threshold_record(setup.loss, loss) if setup.uses_threshold and loss is not None else None


def prepare_training(
    config: Config,
    setup: Setup,
    run: RunFolder,
    device: torch.device,
    metrics: Mapping[str, plugins.Metric],
    resume: bool,
    say: Callable[[str], None],
) -> Training:
    """Read the data (and, when resuming, the checkpoint), and build method, loader and evaluation."""
    data, train, seed = config.data, config.train, config.seed
    if train.sync_batch_norm and device.type != "cuda":
        raise ConfigError(f"train.sync_batch_norm: found true on {device}; expected false (GPUs only)")
    state, initial_setup, given = None, setup, data
    if resume and run.has_checkpoint:  # weights are in its checkpoint, input statistics and split in its split.json
        state, initial_setup, given = _load(run, config), setup.resumed(), results.recorded_data(data, run)
    # A resumed run calibrates as before, hence `setup`, but loads no initial weights, hence `initial_setup`.
    held_back = () if state is None else results.record(run).get("held_back", ())
    material = with_held_back(setup, replace(gather_material(given, initial_setup, seed), group=data.group), held_back)
    if state is not None:
        results.same_split(run, material)
    torch.manual_seed(seed)  # initial weights depend on the seed alone
    method = build_method(initial_setup, material.facts, material.loss_weights(initial_setup.supervised.class_weights))
    if train.sync_batch_norm:
        nn.SyncBatchNorm.convert_sync_batchnorm(method)  # type: ignore[no-untyped-call]
    loader = build_loader(data, config.augment, train, material, method, device, seed)
    if state is not None:
        with checkpoint.fitting():
            loader.sampler.load_state_dict(state["streams"])
    pixel_loss = method.pixel_loss if isinstance(method.pixel_loss, PixelLossModule) else None
    reader, sections = build_reader(data, material.card), (train, config.evaluate, config.loss)
    scoring = Scoring(material, reader, device, *sections, pixel_loss, run, metrics)
    batches: Batches = loader.batches
    if setup.calibrates or setup.gates:
        batches = Calibration(setup, scoring, method, say).batches(batches)
    notes = notes_of(setup, method)
    announce(setup, data, material, method, notes, say)
    if state is not None:
        before, after = state["config"]["train"]["steps"], train.steps
        changed = f"; --steps was {before}: the schedules now extend over {after}" if before != after else ""
        say(f"resuming at step {state['step']}{changed}")
    return Training(setup, material, method, loader, batches, scoring, notes, state)


def _load(run: RunFolder, config: Config) -> dict[str, Any]:
    state = checkpoint.load(run.last_pt)
    try:
        checkpoint.check_resumable(state["config"], config.model_dump(mode="json"), RESUMABLE)
    except checkpoint.CheckpointError as error:
        advice = f"With the run's own settings: fuzzyseg train {run.config} --out {run.path} --resume"
        raise checkpoint.CheckpointError(f"{error}\n{advice}") from None
    if state["step"] > config.train.steps:
        raise ConfigError(f"--steps: found {config.train.steps}; {run.last_pt} is at step {state['step']}: set more")
    return state
