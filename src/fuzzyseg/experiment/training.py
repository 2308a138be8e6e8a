"""`train`: the one place where configuration, data, method, loop and evaluation meet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from fuzzyseg.config import Config, ConfigError, dump_yaml, validate
from fuzzyseg.engine import checkpoint
from fuzzyseg.engine.trainer import Outcome, Settings, fit
from fuzzyseg.experiment.distributed import choose_device, process_group
from fuzzyseg.experiment.learning import Network, build_method, choose_method, loss_name, optimisers_of
from fuzzyseg.experiment.material import Material, build_loader, gather_material, say_sizes
from fuzzyseg.experiment.scoring import Scoring
from fuzzyseg.inference import save_model
from fuzzyseg.methods import Method
from fuzzyseg.ops import collective
from fuzzyseg.run import environment
from fuzzyseg.run.folder import RunFolder
from fuzzyseg.run.logs import MetricsLog, Sink
from fuzzyseg.run.progress import Display
from fuzzyseg.run.tensorboard import TensorBoard

RESUMABLE = {
    "train.steps",
    "train.stop_at",
    "train.workers",
    "train.log_every",
    "train.tensorboard",
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
    device = choose_device(settings.train.device)
    with process_group(device), torch.random.fork_rng(devices=[]):
        say: Callable[[str], None] = _silent if quiet or collective.rank() else print
        return _train(settings, device, network, resume, say)


def _silent(text: str) -> None:
    pass


def _train(
    config: Config, device: torch.device, network: Network | None, resume: bool, say: Callable[[str], None]
) -> RunResult:
    assert config.out is not None
    first = collective.rank() == 0
    run = RunFolder.open(config.out, resume=resume) if first else RunFolder(config.out)
    collective.barrier()
    state = _load(run, config) if resume and run.has_checkpoint else None
    material = gather_material(config, own_network=network is not None)
    if state is not None:
        _same_split(run, material)
    torch.manual_seed(config.seed)
    method = build_method(config, material.facts(config.network.channels), network)
    loader = build_loader(config, material, method, device)
    if state is not None:
        loader.load_state_dict(state["streams"])
    _announce(config, material, method, state, say)
    if first and state is None:
        run.write_config(dump_yaml(config))
        run.write_split(material.split.record())
        run.write_environment(environment.collect(_hardware(device)))
    scoring = Scoring(config, material, device, network)
    outcome = _fit(config, run, method, loader, scoring, device, state, quiet=say is _silent)
    result = None
    if outcome.finished:
        result = _result(config, material, outcome)
        if first:
            save_model(run.model_dir, outcome.predictor, card=scoring.card(outcome.step))
            run.write_result(result)
        collective.barrier()
        say(_summary(run, result))
    elif outcome.interrupted:
        say(f"interrupted: step {outcome.step} is saved in {run.path}; add --resume to the same command to continue")
    else:
        say(f"stopped at step {outcome.step} as asked; saved in {run.path}; add --resume to continue")
    return RunResult(run.path, outcome.finished, outcome.interrupted, outcome.step, result)


def _fit(
    config: Config,
    run: RunFolder,
    method: Method,
    loader: Any,
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
        if collective.rank() == 0:
            sinks.append(stack.enter_context(MetricsLog(run.metrics, keep_to=step)))
            if train.tensorboard:
                sinks.append(stack.enter_context(TensorBoard(run.tensorboard_dir, keep_to=step)))
            if not quiet:
                sinks.append(stack.enter_context(Display(train.steps, done=step)))
        return fit(
            method,
            loader.batches,
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
    checkpoint.check_resumable(state["config"], config.model_dump(mode="json"), RESUMABLE)
    if state["step"] > config.train.steps:
        raise ConfigError(
            f"--steps: found {config.train.steps}, but {run.last_pt} stands at step {state['step']}; ask for more"
        )
    return state


def _same_split(run: RunFolder, material: Material) -> None:
    saved = yaml.safe_load(run.split.read_text(encoding="utf-8"))["hash"]
    if saved != material.split.hash:
        raise ConfigError(
            f"{material.dataset.root}: its images or masks are not those the run began with (split hash {saved}, now "
            f"{material.split.hash}); restore the files, or start again in another --out"
        )


def _hardware(device: torch.device) -> dict[str, Any]:
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "device": str(device),
        "gpu": gpu,
        "threads": torch.get_num_threads(),
        "processes": collective.world_size(),
        "cuda": torch.version.cuda,
    }


def _announce(
    config: Config, material: Material, method: Method, state: dict[str, Any] | None, say: Callable[[str], None]
) -> None:
    if say is _silent:
        return
    for sentence in [*material.dataset.found, *material.split.sentences, *say_sizes(config, material)]:
        say(sentence)
    name = loss_name(config, type(method))
    parameters = sum(p.numel() for p in method.parameters() if p.requires_grad)
    say(f"method {config.method.name}, loss {name or 'none'}, {parameters / 1e6:.1f} M trainable parameters")
    if name == "fuzzy" and len(material.dataset.classes) == 2:
        say("two classes: every fuzzy set holds one class, so FPL is weighted cross entropy here")
    if state is not None:
        say(f"resuming at step {state['step']}")


def _result(config: Config, material: Material, outcome: Outcome) -> dict[str, Any]:
    return {
        "last": outcome.last,
        "best": outcome.best,
        "steps": outcome.step,
        "seed": config.seed,
        "method": config.method.name,
        "loss": config.loss.name,
        "labelled": len(material.split.labelled),
        "split": material.split.hash,
        "protocol": (outcome.last or {}).get("protocol"),
    }


def _summary(run: RunFolder, result: dict[str, Any]) -> str:
    if result["last"] is None:
        return f"done: model in {run.model_dir} (not evaluated)"
    text = f"done: mIoU {100 * result['last']['miou']:.2f} % at the last step"
    if result["best"] is not None:
        text += f" (best on val {100 * result['best']['miou']:.2f} % at step {result['best']['step']})"
    return f"{text}; model in {run.model_dir}"
