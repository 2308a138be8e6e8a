"""`train`: the one place where configuration, data, method, loop and evaluation meet."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fuzzyseg.config import Config, ConfigError, dump_yaml, validate
from fuzzyseg.data.io.pillow import pixel_limit
from fuzzyseg.data.loading.loader import Loader
from fuzzyseg.engine import checkpoint
from fuzzyseg.engine.trainer import Outcome, Settings, fit
from fuzzyseg.experiment.build import (
    Network,
    build_method,
    choose_method,
    idle_options,
    loss_name,
    notes_of,
    optimisers_of,
)
from fuzzyseg.experiment.calibration import Batches, calibrated_batches, with_held_back
from fuzzyseg.experiment.prepare_data import Material, build_loader, gather_material, say_balance, say_sizes
from fuzzyseg.experiment.process_group import choose_device, process_group
from fuzzyseg.experiment.results import hardware, result_of, same_split, sessions, split_record, without_files
from fuzzyseg.experiment.threshold_policy import say_threshold, threshold_of, threshold_record
from fuzzyseg.experiment.validation import Scoring
from fuzzyseg.inference import save_model
from fuzzyseg.losses import SET_LOSSES
from fuzzyseg.methods import Method
from fuzzyseg.ops import distributed
from fuzzyseg.run import environment
from fuzzyseg.run.folder import RunFolder
from fuzzyseg.run.logs import MetricsLog, Sink
from fuzzyseg.run.progress import Display, score_text
from fuzzyseg.run.tensorboard import TensorBoard, available

RESUMABLE = {
    "data.cache",
    "data.cache_mib",
    "data.cache_dir",
    "train.steps",
    "train.stop_at",
    "train.workers",
    "train.log_every",
    "train.tensorboard",
    "train.k_maps",
    "out",
}
"""Settings that may change when a run is resumed."""


@dataclass(frozen=True)
class RunResult:
    """Where a training ended.

    run: its folder. finished: no step is left. interrupted: a signal ended it. step: finished steps. result: what
    stands in result.json; None until the run is finished.
    """

    run: Path
    finished: bool
    interrupted: bool
    step: int
    result: dict[str, Any] | None


def train(
    config: Config | Mapping[str, Any], *, network: Network | None = None, resume: bool = False, quiet: bool = False
) -> RunResult:
    """What `fuzzyseg train` does.

    config: a `Config` or nested settings. network: a factory of networks to train in place of one of
    segmentation_models_pytorch; each call must give a newly initialised module with an `encoder` that returns logits
    (B,C,h,w) at any stride. resume: continue the run folder if it holds a checkpoint. quiet: print nothing.
    Raises ConfigError, DataError, RunFolderError (all ValueErrors) for what the user can mend, NonFiniteLoss where the
    loss is not finite.
    """
    settings = config if isinstance(config, Config) else validate(config)
    if settings.out is None:
        raise ConfigError("--out: not given; name the run folder, such as --out runs/first")
    choose_method(settings)  # typing errors show before any file is read
    settings = _resolved(settings)
    device = choose_device(settings.train.device)
    with process_group(device), pixel_limit(settings.data.max_megapixels), torch.random.fork_rng(devices=[]):
        say: Callable[[str], None] = _silent if quiet or distributed.rank() else print
        return _train(settings, device, network, resume, say)


def _resolved(config: Config) -> Config:
    """With absolute paths, so that the run can be evaluated and resumed from any folder."""
    config = config.model_copy(deep=True)
    if config.data.root is not None:
        config.data.root = str(Path(config.data.root).resolve())
    if config.data.more is not None:
        config.data.more = [str(Path(root).resolve()) for root in config.data.more]
    if config.data.unlabelled_from is not None:  # patterns too: what they match is not looked at
        config.data.unlabelled_from = [os.path.abspath(Path(p).expanduser()) for p in config.data.unlabelled_from]
    if config.init is not None:
        config.init = [str(Path(path).resolve()) for path in config.init]
    if config.network.weights not in ("imagenet", "none"):
        config.network.weights = str(Path(config.network.weights).resolve())
    for key in ("labelled", "val", "description"):
        value = getattr(config.data, key)
        if value is not None and Path(value).is_file():
            setattr(config.data, key, str(Path(value).resolve()))
    return config


def _silent(text: str) -> None:
    pass


def _train(
    config: Config, device: torch.device, network: Network | None, resume: bool, say: Callable[[str], None]
) -> RunResult:
    assert config.out is not None
    first = distributed.rank() == 0
    run = RunFolder(config.out)
    run.check_empty(resume=resume)  # before anything is read
    state = _load(run, config) if resume and run.has_checkpoint else None
    begun = config if state is None else without_files(config, run)
    material = with_held_back(config, gather_material(begun, own_network=network is not None))
    if state is not None:
        same_split(run, material)
    torch.manual_seed(config.seed)
    facts = material.facts(config.network.channels)
    method = build_method(begun, facts, network, threshold_of(config, facts))
    loader = build_loader(config, material, method, device)
    if state is not None:
        loader.load_state_dict(state["streams"])
    scoring = Scoring(config, material, device, network, method.pixel_loss)
    batches = calibrated_batches(config, loader.batches, scoring, method, say)
    _announce(config, material, method, state, say)
    if first:  # nothing is written before all that was asked for is known to fit
        RunFolder.open(run.path, resume=resume)
        run.write_config(dump_yaml(config))
        run.write_split(split_record(material, threshold_record(config, method)))
        run.write_environment(sessions(run, environment.collect(hardware(device)), state))
    distributed.barrier()
    outcome = _fit(config, run, method, loader, batches, scoring, device, state, quiet=say is _silent)
    result = None
    if outcome.finished:
        result = result_of(config, material, outcome, threshold_record(config, method), notes_of(config, method))
        if first:
            save_model(run.model_dir, outcome.predictor, card=scoring.card(outcome.step))
            run.write_result(result)
        distributed.barrier()
        say(_summary(run, result))
    elif outcome.interrupted:
        say(f"interrupted: step {outcome.step} is saved in {run.path}; it goes on with --resume")
    else:
        say(f"stopped at step {outcome.step} as asked; saved in {run.path}; it goes on with --resume")
    return RunResult(run.path, outcome.finished, outcome.interrupted, outcome.step, result)


def _fit(
    config: Config,
    run: RunFolder,
    method: Method,
    loader: Loader,
    batches: Batches,
    scoring: Scoring,
    device: torch.device,
    state: dict[str, Any] | None,
    *,
    quiet: bool,
) -> Outcome:
    """The loop, with the logs open while it runs."""
    method.to(device)  # before the optimisers, whose state lives where the parameters are
    train, step = config.train, state["step"] if state else 0
    can_score = train.evaluate and scoring.possible

    def keep_best(predictor: nn.Module, score: dict[str, Any]) -> None:
        save_model(run.best_dir, predictor, card=scoring.card(score["step"]))

    with ExitStack() as stack:
        sinks: list[Sink] = []
        if distributed.rank() == 0:
            sinks.append(stack.enter_context(MetricsLog(run.metrics, keep_to=step)))
            if available() if train.tensorboard == "auto" else train.tensorboard:
                sinks.append(stack.enter_context(TensorBoard(run.tensorboard_dir, keep_to=step)))
            if not quiet:
                sinks.append(stack.enter_context(Display(train.steps, done=step)))
        stack.enter_context(_in_our_words())
        return fit(
            method,
            batches,
            optimisers_of(config, method),
            _settings(config, device),
            evaluate=scoring.evaluate if can_score else None,
            keep_best=keep_best if can_score and scoring.choose_best else None,
            publish=loader.publish,
            stream_state=loader.state_dict,
            sinks=sinks,
            checkpoint=run.last_pt,
            config=config.model_dump(mode="json"),
            resume=state,
        )


@contextmanager
def _in_our_words() -> Iterator[None]:
    """Batch normalisation of one value a channel is torch's error; the settings that mend it are ours."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ConfigError(
            f"one image at a time is too few for the network's batch normalisation ({error}): raise --batch, lower "
            "train.accumulate or the number of processes, or set train.freeze_batch_norm=true"
        ) from None


def _settings(config: Config, device: torch.device) -> Settings:
    train, tenth = config.train, max(1, config.train.steps // 10)
    eval_every = tenth if train.eval_every is None else train.eval_every
    return Settings(
        steps=train.steps,
        device=device,
        seed=config.seed,
        stop_at=train.stop_at,
        precision=train.precision,
        clip=config.optim.clip,
        channels_last=train.channels_last,
        compile=train.compile,
        ema=train.ema,
        freeze_batch_norm=train.freeze_batch_norm,
        eval_every=eval_every if train.evaluate else None,
        save_every=tenth if train.save_every is None else train.save_every,
        log_every=train.log_every,
        schedule=config.optim.schedule,
        power=config.optim.power,
        warmup=config.optim.warmup,
    )


def _load(run: RunFolder, config: Config) -> dict[str, Any]:
    state = checkpoint.load(run.last_pt)
    try:
        checkpoint.check_resumable(state["config"], config.model_dump(mode="json"), RESUMABLE)
    except checkpoint.CheckpointError as error:
        own = f"With the run's own settings: fuzzyseg train {run.config} --out {run.path} --resume"
        raise checkpoint.CheckpointError(f"{error}\n{own}") from None
    if state["step"] > config.train.steps:
        raise ConfigError(
            f"--steps: found {config.train.steps}, but {run.last_pt} stands at step {state['step']}; ask for more"
        )
    return state


def _announce(
    config: Config, material: Material, method: Method, state: dict[str, Any] | None, say: Callable[[str], None]
) -> None:
    if say is _silent:
        return
    found = [*material.dataset.notes, *material.split.notes, *say_sizes(config, material)]
    for sentence in [*found, *say_balance(config, material)]:
        say(sentence)
    name = loss_name(config, type(method))
    parameters = sum(p.numel() for p in method.parameters() if p.requires_grad)
    shown = f"{config.loss.name} ({name or 'none'})" if config.loss.name == "paper" else name
    say(f"method {config.method.name}, loss {shown}, {parameters / 1e6:.1f} M trainable parameters")
    for sentence in say_threshold(config, method.facts):
        say(sentence)
    if idle := idle_options(config, type(method)):
        has = "has" if len(idle) == 1 else "have"
        say(f"note: {', '.join(idle)} {has} no effect with --loss {config.loss.name} as it is set")
    if name in SET_LOSSES and len(material.dataset.classes) == 2:
        what = "FPL" if name == "fuzzy" else f"the loss {name}"
        say(f"two classes: every fuzzy set holds one class, so {what} is weighted cross entropy here")
    for sentence in notes_of(config, method):
        say(f"note: {sentence}")
    if state is not None:
        before, now = state["config"]["train"]["steps"], config.train.steps
        changed = f"; --steps was {before}: the schedules go by {now} now" if before != now else ""
        say(f"resuming at step {state['step']}{changed}")


def _summary(run: RunFolder, result: dict[str, Any]) -> str:
    if result["last"] is None:
        return f"done: model in {run.model_dir} (not evaluated)"
    text = f"done: {score_text(result['last'])} at the last step"
    if result["best"] is not None:
        text += f" (best on val {100 * result['best']['miou']:.2f} % at step {result['best']['step']})"
    return f"{text}; model in {run.model_dir}"
