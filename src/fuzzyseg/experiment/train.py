"""Training of a run: builds data, method, training loop, evaluation and run folder from the configuration."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim import Optimizer

from fuzzyseg import plugins
from fuzzyseg.config import Config, ConfigError, OptimConfig, TrainConfig, dump_yaml, settings_from
from fuzzyseg.data.io.pillow import pixel_limit
from fuzzyseg.data.io.write import check_writable
from fuzzyseg.engine import Outcome, Settings, checkpoint, fit
from fuzzyseg.experiment import results
from fuzzyseg.experiment.announce import summary, tell
from fuzzyseg.experiment.build import Setup, optimisers_of, resolve
from fuzzyseg.experiment.card_record import with_record
from fuzzyseg.experiment.dry_run import dry_run as dry_run_of
from fuzzyseg.experiment.estimate import evaluation_interval, with_memory_check
from fuzzyseg.experiment.own_dataset import Source, find_dataset, write_dataset
from fuzzyseg.experiment.prepare_training import Training, prepare_training
from fuzzyseg.experiment.process_group import choose_device, on_first_process, process_group, sharding_of
from fuzzyseg.experiment.threads import cpu_threads
from fuzzyseg.inference import save_model
from fuzzyseg.losses import PIXEL_LOSSES, PixelFunction
from fuzzyseg.methods import METHODS, Method
from fuzzyseg.methods.base import Network
from fuzzyseg.networks import check_names
from fuzzyseg.ops import distributed
from fuzzyseg.run import environment
from fuzzyseg.run.files import write_text
from fuzzyseg.run.folder import RunFolder
from fuzzyseg.run.health import review_of
from fuzzyseg.run.logs import SCORE, MetricsLog, Sink, write_json
from fuzzyseg.run.progress import Display
from fuzzyseg.run.trackers import TensorBoard, Tracker, available

if TYPE_CHECKING:
    from fuzzyseg.engine.sharding import Sharding


@dataclass(frozen=True)
class RunResult:
    """Outcome of a call to `train`.

    run: the run folder. finished: whether all steps are done. interrupted: whether a signal stopped the run. step:
    number of completed steps. result: content of result.json; None until the run is finished.
    """

    run: Path
    finished: bool
    interrupted: bool
    step: int
    result: dict[str, Any] | None


def train(
    config: Config | Mapping[str, Any] | None = None,
    *,
    network: Network | None = None,
    method: type[Method] | str | None = None,
    loss: PixelFunction | str | None = None,
    data: Source | str | Path | None = None,
    metrics: Mapping[str, plugins.Metric] | None = None,
    resume: bool = False,
    quiet: bool = False,
    dry_run: bool = False,
    **given: Any,
) -> RunResult:
    """Train a model, as `fuzzyseg train` does. Example: `train(data="photos", method="cps", steps=2000, out="runs/a")`.

    Args:
        config: a `Config`, or a mapping of settings, nested or with dotted keys (`{"train.crop": 256}`).
        network: factory that returns a newly initialised module at each call. The module needs an `encoder` attribute
            and maps images (B,Cin,H,W) to logits (B,C,h,w) at any stride.
        method: a name, or a subclass of `fuzzyseg.methods.Method`, which is configured by the section `method`.
        loss: a name, or a pseudo-label loss with the signature of `fuzzyseg.losses.pseudo_label`. If it has a parameter
            `options`, its annotation is the pydantic model that validates `loss.options`.
        data: a folder, a dataset of (image, mask or None) pairs, or a mapping of splits (train, val, test) to such
            datasets; see `Pairs`. Datasets are written to the folder `<out>.data`, which replaces `data.root`.
        metrics: functions of the confusion matrix, by name; see `Metric`. The first one selects the best checkpoint.
        resume: continue from the checkpoint in the run folder, if any; always done after a restart by torchrun.
        quiet: print nothing. dry_run: run three steps, print time and memory, and write no run folder.
        given: settings by option name (`image_size=256`), or whole sections; they override `config`.

    Raises:
        ConfigError, DataError, RunFolderError: the settings, data or run folder are invalid (all are ValueErrors).
        NonFiniteLoss: the loss is NaN or infinite.
    """
    named = {"method": method, "loss": loss, "data": data}
    given |= {key: value for key, value in named.items() if isinstance(value, str | Path)}
    settings = settings_from(config, given)
    own_method, own_loss = None if isinstance(method, str) else method, None if isinstance(loss, str) else loss
    if settings.out is None:
        raise ConfigError("--out: not given; give the run folder, such as --out runs/first")
    for custom, table, section in ((own_method, METHODS, settings.method), (own_loss, PIXEL_LOSSES, settings.loss)):
        if custom is not None:
            section.name = custom.__name__
            if custom.__name__ in table:
                raise ConfigError(f"found an object with the built-in name {custom.__name__!r}; rename it")
    setup = resolve(settings, method=own_method, loss=own_loss, network=network)  # before any file is read
    if network is None:
        check_names(settings.network.arch, settings.network.encoder)
    device, run = choose_device(settings.train.device), RunFolder(settings.out)
    with process_group(device), pixel_limit(settings.data.max_megapixels), torch.random.fork_rng(devices=[]):
        resume = resume or distributed.gather_objects(results.restarted(run))[0]
        run.check_empty(resume=resume)
        check_writable(run.path)
        source = find_dataset(settings.data.root) if data is None or isinstance(data, str | Path) else data
        if source is not None:
            settings.data.root = _written(source, f"{settings.out}.data", keep=resume)
        say = _silent if quiet or distributed.rank() else tell
        with on_first_process(run.lock() if resume else nullcontext(), device):  # before the checkpoint is read
            settings = results.absolute_paths(settings)
            setup = replace(setup, init=settings.init or [])
            return _train(settings, setup, device, metrics or plugins.metrics(), resume, dry_run, say)


def _written(source: Source, folder: str, *, keep: bool) -> str:
    if distributed.rank() == 0:
        write_dataset(source, Path(folder), keep=keep)
    distributed.barrier()
    return folder


def _silent(text: str) -> None:
    """Discard the text."""


def _train(
    config: Config,
    setup: Setup,
    device: torch.device,
    metrics: Mapping[str, plugins.Metric],
    resume: bool,
    rehearse: bool,
    say: Callable[[str], None],
) -> RunResult:
    """Build all parts, passing each the sections that it needs, and train. rehearse: only do a dry run."""
    assert config.out is not None
    run, first, score = RunFolder(config.out), distributed.rank() == 0, next(iter(metrics), SCORE)
    built = prepare_training(config, setup, run, device, metrics, resume, say)
    material, state, train = built.material, built.state, config.train
    settings = _settings(train, config.optim, device, config.seed, score=score)
    if train.evaluate and train.eval_every is None:
        settings = replace(settings, eval_every=evaluation_interval(train, built.method, built.scoring))
    shape = (min(2, train.batch), config.network.channels, *train.crop)
    network = built.method.predictor() if device.type == "cpu" else None
    with cpu_threads(train.threads, network, shape, None if state is None else run) as measured:
        if measured:
            say(measured)
        sharding = sharding_of(setup, train, built.method.to(device))
        optimisers = optimisers_of(config.optim, built.method)  # their state is on the parameters' device
        batches = built.batches if sharding else with_memory_check(built.batches, built.method, settings)
        if rehearse:
            with _explained_errors():
                for line in dry_run_of(built.method, optimisers, settings, batches, built.scoring, sharding):
                    say(line)
            return RunResult(run.path, False, False, 0, None)
        record, sinks = config.model_dump(mode="json"), list[Sink]()
        with on_first_process(nullcontext() if resume else run.lock(), device), ExitStack() as stack:
            if first:  # write nothing to the run folder before all settings are validated and a tracker has started
                run.check_empty(resume=resume)
                loggers = _loggers(run, train, record, state, device, quiet=say is _silent)
                sinks += (stack.enter_context(closing(sink)) for sink in loggers)
                write_text(run.config, dump_yaml(config))
                write_json(run.split, results.split_record(material, built.threshold()))
                now = environment.collect(results.hardware(device))
                write_json(run.environment, results.sessions(run, now, state))
            distributed.barrier()
            outcome = _fit(run, replace(built, batches=batches), optimisers, sharding, settings, record, sinks)
            result = None
            if outcome.finished:
                result = results.result_of(setup, config.seed, material, outcome, built.threshold(), built.notes)
                if first:
                    save_model(run.model_dir, outcome.predictor, card=with_record(built.scoring, config, result))
                    write_json(run.result, result)
                distributed.barrier()
    say(summary(run, outcome, score=score))
    return RunResult(run.path, outcome.finished, outcome.interrupted, outcome.step, result)


def _fit(
    run: RunFolder,
    built: Training,
    optimisers: Sequence[Optimizer],
    sharding: "Sharding | None",
    settings: Settings,
    record: dict[str, Any],
    sinks: Sequence[Sink],
) -> Outcome:
    """Run the training loop and return its outcome. record: the configuration to store in checkpoints."""
    method, loader, scoring = built.method, built.loader, built.scoring
    can_score = scoring.train.evaluate and bool(scoring.items)

    def keep_best(predictor: nn.Module, score: dict[str, Any]) -> None:
        save_model(run.best_dir, predictor, card=scoring.card_at(score["step"]))

    with _explained_errors():
        return fit(
            method,
            built.batches,
            optimisers,
            settings,
            evaluate=scoring.evaluate if can_score else None,
            keep_best=keep_best if can_score and scoring.material.split.choose_best else None,
            publish=loader.sampler.publish,
            stream_state=loader.sampler.state_dict,
            sinks=sinks,
            checkpoint=run.last_pt,
            config=record,
            resume=built.state,
            sharding=sharding,
        )


def _loggers(
    run: RunFolder, train: TrainConfig, record: dict[str, Any], state: Any, device: torch.device, *, quiet: bool
) -> Iterator[Sink]:
    """Yield the configured log files, tracker and progress display. When resuming, they continue after `state`."""
    step = state["step"] if state else 0
    logged = step - (state is not None and "unscored" in state)  # a step's line is written after its evaluation
    yield MetricsLog(run.metrics, keep_to=logged, review=review_of(dict(checkpoint.leaves(record))))
    if available() if train.tensorboard == "auto" else train.tensorboard:
        yield TensorBoard(run.tensorboard_dir, keep_to=logged)
    if (track := record["track"])["to"]:
        yield Tracker(**track, folder=run.path, config=record, keep_to=logged)
    if not quiet:
        work = f"batches of {train.batch} images of {train.crop[0]}x{train.crop[1]} on {device}"
        yield Display(train.steps, done=step, work=work)


@contextmanager
def _explained_errors() -> Iterator[None]:
    """Replace torch's out-of-memory and single-value batch norm errors with errors that suggest settings."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ConfigError(
            f"one image per forward pass is too few for the network's batch normalisation ({error}): raise --batch, "
            "lower train.accumulate or the number of processes, or set train.freeze_batch_norm=true"
        ) from None
    except torch.OutOfMemoryError as error:
        raise ConfigError(
            f"out of GPU memory ({str(error).partition('. ')[0]}): set train.accumulate=2 (the batch in parts), "
            "train.precision=bf16, network.checkpointing=true (ViTs), or a smaller --crop, --batch or --encoder; "
            "in an evaluation evaluate.mode=sliding or a smaller evaluate.batch"
        ) from None


def _settings(train: TrainConfig, optim: OptimConfig, device: torch.device, seed: int, *, score: str) -> Settings:
    known = {field.name for field in fields(Settings)} - {"device"}
    values = train.model_dump(include=known) | optim.model_dump(include=known)
    values["save_every"] = train.save_every or max(1, train.steps // 10)
    if not train.evaluate:
        values["eval_every"] = None
    return Settings(**values, device=device, seed=seed, score=score)
