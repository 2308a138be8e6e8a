"""The loop: `fit` trains any method on any batches; what it needs of the data is handed in."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, Self

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from fuzzyseg.engine.buffers import first_process_buffers
from fuzzyseg.engine.checkpoint import Training, save
from fuzzyseg.engine.ema import average_of
from fuzzyseg.engine.metrics import averaged
from fuzzyseg.engine.nan_check import NonFiniteLoss, check, gradient_norm
from fuzzyseg.engine.optim import factor, rates, set_rates
from fuzzyseg.engine.signals import Interrupt
from fuzzyseg.methods.base import Method, Progress, Step
from fuzzyseg.ops import distributed
from fuzzyseg.run.environment import peak_memory_mib
from fuzzyseg.run.logs import SCORE, Sink
from fuzzyseg.run.progress import Pace

__all__ = ["NonFiniteLoss", "Outcome", "Samples", "Settings", "fit"]

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Samples(Protocol):
    """What the loop needs of one stream's batch; the method needs more."""

    image: Tensor
    name: list[str]

    def to(self, device: torch.device, channels_last: bool = False) -> Self:
        """The same samples on `device`."""


MicroBatch = Mapping[str, Samples]
Batches = Callable[[int, int], Iterator[Sequence[MicroBatch]]]
Evaluate = Callable[[nn.Module, int], dict[str, Any]]


@dataclass(frozen=True)
class Settings:
    """How a method is trained."""

    steps: int
    """Optimiser steps in all; the schedules follow it."""
    device: torch.device
    seed: int = 0
    score: str = SCORE  # key of the evaluation; the largest value is the best
    stop_at: int | None = None
    """Save and end after this step; schedules and evaluations do not change."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    clip: float | None = None
    """Largest norm of all gradients together."""
    channels_last: bool = False
    compile: bool = False
    ema: float | None = None
    """Largest decay of an average of the predictor's weights (`average_of`), which then is evaluated and saved."""
    freeze_batch_norm: bool = False
    eval_every: int | None = 0
    """Steps between evaluations; 0: at the end only; None: never. The last step is always evaluated but for None."""
    save_every: int | None = None
    """Steps between checkpoints; None: at the end only."""
    log_every: int = 10
    schedule: str = "poly"
    power: float = 0.9
    warmup: int = 0


@dataclass(frozen=True)
class Outcome:
    """Where `fit` ended.

    step: finished steps. finished: none is left. interrupted: a signal ended it before `steps` or `stop_at`.
    last, best: the latest and the best evaluation with its `step`, of this or an earlier session; None without one.
    predictor: what is to be exported, in evaluation mode.
    """

    step: int
    finished: bool
    interrupted: bool
    last: dict[str, Any] | None
    best: dict[str, Any] | None
    predictor: nn.Module


def fit(
    method: Method,
    batches: Batches,
    optimisers: Sequence[Optimizer],
    settings: Settings,
    *,
    evaluate: Evaluate | None = None,
    keep_best: Callable[[nn.Module, dict[str, Any]], None] | None = None,
    publish: Callable[[str, int, Tensor], None] | None = None,
    stream_state: Callable[[], dict[str, Any]] = dict,
    sinks: Sequence[Sink] = (),
    checkpoint: Path | None = None,
    config: Mapping[str, Any] | None = None,
    resume: Mapping[str, Any] | None = None,
) -> Outcome:
    """Train `method` from step 0, or from where `resume` (what `checkpoint.load` gave) ended.

    batches(start, stop) yields, for the steps start to stop - 1, the micro-batches of this process; their losses are
    averaged, so that accumulation equals one large batch where all have the same number of valid pixels.
    evaluate(predictor, finished steps) is called on every process with the same weights and buffers, without
    gradients, and must return the same plain values on all; `settings.score` is the key of the score for `keep_best`,
    which the first process calls with an evaluation that beats all before. publish(stream, step, weights) takes draw
    weights after each step; `stream_state()` and `config` are stored in `checkpoint` as `streams` and `config`.
    Only the first process writes.
    The first SIGINT or SIGTERM ends the training after its step and a save, the second raises KeyboardInterrupt.
    Raises NonFiniteLoss, with the weights as they were before the step.
    """
    training = _start(method, optimisers, settings, resume)
    runner, rank, last_step = _runner(method, settings), distributed.rank(), settings.steps
    first = training.step
    end = max(first, min(settings.stop_at or last_step, last_step))
    listeners = sinks if rank == 0 else ()
    pace, stop = Pace(end - first), False
    _training_mode(method, settings)
    with Interrupt() as interrupt:
        for step, micro_batches in zip(range(first, end), batches(first, end), strict=True):
            # Nothing random is carried over: dropout and noise are a function of seed, step and process.
            progress = Progress(step, last_step)
            torch.manual_seed(_step_seed(settings.seed, step, rank))
            set_rates(
                optimisers,
                factor(step, last_step, schedule=settings.schedule, power=settings.power, warmup=settings.warmup),
            )

            # Forward and backward; the weights move only if every loss of every process is finite.
            steps = [
                _backward(runner, micro_batch, progress, training.scaler, settings, len(micro_batches), number)
                for number, micro_batch in enumerate(micro_batches, start=1)
            ]
            names = [{stream: samples.name for stream, samples in each.items()} for each in micro_batches]
            stop = check(steps, names, progress, interrupt.asked, gradient_norm(training))
            _update(training, settings.clip)
            method.after_step(progress)
            if training.average is not None:
                training.average.update_parameters(method.predictor())
            if publish is not None:
                _publish(method, step, publish)
            training.step = step + 1
            pace.step(distributed.world_size() * sum(len(s.image) for each in micro_batches for s in each.values()))
            for sink in listeners:
                sink.tick(training.step)

            # Evaluations and lines depend on the step alone, never on where a session began or ended.
            line: dict[str, Any] = {}
            if evaluate is not None and _evaluation_due(training.step, settings):
                with pace.pause():
                    line["evaluation"] = _evaluate(training, settings, evaluate, keep_best)
            if line or training.step in (1, last_step) or training.step % settings.log_every == 0:
                line = {"step": training.step, **averaged(steps), "lr": rates(optimisers), **line}
                line["time"] = {**pace.read(), "memory_mib": _memory(settings.device)}
                for sink in listeners:
                    sink.write(line)

            # On one process a signal of this very moment counts; several must have agreed.
            stop = (stop or (interrupt.asked and not distributed.active())) and training.step < end
            saving = settings.save_every is not None and training.step % settings.save_every == 0
            if checkpoint is not None and (saving or stop or training.step == end):
                with pace.pause():
                    state = {**training.state(), "streams": stream_state(), "config": dict(config or {})}
                    if rank == 0:
                        save(checkpoint, state)
                    distributed.barrier()
            if stop:
                break
    finished = training.step >= last_step
    return Outcome(training.step, finished, stop, training.last, training.best, training.predictor().eval())


def _start(
    method: Method, optimisers: Sequence[Optimizer], settings: Settings, resume: Mapping[str, Any] | None
) -> Training:
    method.to(settings.device)
    if settings.channels_last:
        method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    scaler = GradScaler(settings.device.type, enabled=settings.precision == "fp16")
    average = None if settings.ema is None else average_of(method.predictor(), settings.ema)
    training = Training(method, optimisers, scaler, average)
    if resume is not None:
        training.restore(resume)
    return training


def _runner(method: Method, settings: Settings) -> Callable[..., Step]:
    """The method, in DDP where several processes train together, compiled if asked."""
    runner: Any = method
    if distributed.active():
        devices = [settings.device] if settings.device.type == "cuda" else None
        with warnings.catch_warnings():
            # torch 2.15 announces another name for broadcast_buffers, under which it would overwrite restored buffers
            warnings.simplefilter("ignore", FutureWarning)
            runner = DistributedDataParallel(
                method, device_ids=devices, broadcast_buffers=False, find_unused_parameters=True
            )
    return torch.compile(runner) if settings.compile else runner  # type: ignore[no-any-return]


def _backward(
    runner: Any,
    micro_batch: MicroBatch,
    progress: Progress,
    scaler: GradScaler,
    settings: Settings,
    count: int,
    number: int,
) -> Step:
    """Losses and gradients of the `number`-th of `count` micro-batches; the last one sums over the processes."""
    device = settings.device
    batch = {name: samples.to(device, settings.channels_last) for name, samples in micro_batch.items()}
    alone = number < count and hasattr(runner, "no_sync")
    with runner.no_sync() if alone else nullcontext():
        with torch.autocast(device.type, _DTYPES[settings.precision], enabled=settings.precision != "fp32"):
            step: Step = runner(batch, progress)
        total = torch.stack(list(step.losses.values())).sum()
        scaler.scale(total / count).backward()  # type: ignore[no-untyped-call]
    return Step({name: value.detach() for name, value in step.losses.items()}, step.metrics)


def _update(training: Training, clip: float | None) -> None:
    """One step of every optimiser that has gradients, clipped over all of them together."""
    scaler = training.scaler
    moving = [
        optimiser
        for optimiser in training.optimisers
        if any(p.grad is not None for group in optimiser.param_groups for p in group["params"])
    ]
    if clip is not None:
        for optimiser in moving:
            scaler.unscale_(optimiser)
        nn.utils.clip_grad_norm_(training.method.parameters(), clip)
    for optimiser in moving:
        scaler.step(optimiser)
    scaler.update()
    for optimiser in training.optimisers:
        optimiser.zero_grad(set_to_none=True)


def _evaluate(
    training: Training,
    settings: Settings,
    evaluate: Evaluate,
    keep_best: Callable[[nn.Module, dict[str, Any]], None] | None,
) -> dict[str, Any]:
    """Evaluate the predictor, remember the result, keep the best, and go back to training."""
    predictor = training.predictor().eval()
    with torch.no_grad(), first_process_buffers(predictor):
        result = evaluate(predictor, training.step)
        training.last = {"step": training.step, **result}
        if keep_best is not None and result[settings.score] > (training.best or {}).get(settings.score, float("-inf")):
            training.best = training.last
            if distributed.rank() == 0:
                keep_best(predictor, training.best)
    _training_mode(training.method, settings)
    return result


def _training_mode(method: Method, settings: Settings) -> None:
    method.train()
    for module in method.modules() if settings.freeze_batch_norm else ():
        if isinstance(module, _BatchNorm):
            module.eval()


def _publish(method: Method, step: int, publish: Callable[[str, int, Tensor], None]) -> None:
    for stream in method.streams:
        weights = method.draw_weights(stream)
        if weights is not None:
            publish(stream, step, weights.detach())


def _evaluation_due(step: int, settings: Settings) -> bool:
    every = settings.eval_every
    return every is not None and (step == settings.steps or (every > 0 and step % every == 0))


def _step_seed(seed: int, step: int, rank: int) -> int:
    digest = hashlib.blake2b(f"{seed}/{step}/{rank}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1  # 63 bits


def _memory(device: torch.device) -> float | None:
    """Most memory held so far in MiB: the accelerator's, or the process's."""
    return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else peak_memory_mib()
