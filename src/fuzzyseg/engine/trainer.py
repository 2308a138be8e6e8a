"""Training loop: `fit` trains any method on any batches; the caller provides data, evaluation and logging."""

import hashlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from fuzzyseg.engine.buffers import first_process_buffers
from fuzzyseg.engine.checkpoint import fitting, save_training
from fuzzyseg.engine.optim import rate_factor, rates, set_rates
from fuzzyseg.engine.signals import Interrupt
from fuzzyseg.engine.state import Outcome, Settings, TrainingState, average_of
from fuzzyseg.engine.step_values import MicroBatch, averaged, check_finite, memory_mib
from fuzzyseg.methods.base import Method, Progress, Step
from fuzzyseg.ops import distributed
from fuzzyseg.run.logs import Sink, Throughput

if TYPE_CHECKING:
    from fuzzyseg.engine.sharding import Sharding

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

Batches = Callable[[int, int], Iterator[Sequence[MicroBatch]]]
Evaluate = Callable[[nn.Module, int], dict[str, Any]]
KeepBest = Callable[[nn.Module, dict[str, Any]], None]


def fit(
    method: Method,
    batches: Batches,
    optimisers: Sequence[Optimizer],
    settings: Settings,
    *,
    evaluate: Evaluate | None = None,
    keep_best: KeepBest | None = None,
    publish: Callable[[str, int, Tensor], None] | None = None,
    stream_state: Callable[[], dict[str, Any]] = dict,
    sinks: Sequence[Sink] = (),
    checkpoint: Path | None = None,
    config: Mapping[str, Any] | None = None,
    resume: Mapping[str, Any] | None = None,
    sharding: "Sharding | None" = None,
) -> Outcome:
    """Train `method` from step 0, or from the state `resume` (the result of `checkpoint.load`).

    batches(start, stop) yields the micro-batches of this process for the steps start to stop - 1. Their losses are
    averaged, so accumulation is equivalent to one large batch if all have the same number of valid pixels.
    evaluate(predictor, finished steps) is called on every process with the same weights and buffers, without gradients,
    and must return the same plain values on all. keep_best(predictor, evaluation) is called on rank 0 if
    `settings.score` is the highest so far. publish(stream, step, weights) receives the method's sampling weights after
    each step. `stream_state()` and `config` are stored in `checkpoint` as `streams` and `config`. Only rank 0 writes.
    sharding: the sharding of the method; by default, several processes use DDP.
    The first SIGINT, SIGTERM, SIGHUP or SIGUSR1 saves a checkpoint and stops training after the current step; the
    second raises KeyboardInterrupt. Raises NonFiniteLoss, leaving the weights as they were before the step.
    """
    training = _start(method, optimisers, settings, resume, sharding)
    runner, rank, last_step = _runner(training, settings), distributed.rank(), settings.steps
    first = training.step
    end = max(first, min(settings.stop_at or last_step, last_step))
    listeners = sinks if rank == 0 else ()
    throughput, stop = Throughput(end - first), False

    def save(keep: int, **more: Any) -> None:
        if checkpoint is not None:
            with throughput.pause():
                more |= {"streams": stream_state(), "config": dict(config or {})}
                save_training(checkpoint, training, more, settings.device, keep)

    def report(line: dict[str, Any], due: bool) -> None:
        if due and evaluate is not None:
            with throughput.pause():
                line["evaluation"] = _evaluate(training, settings, evaluate, keep_best)
        line["time"] = {**throughput.read(), "memory_mib": memory_mib(settings.device)}
        for sink in listeners:
            sink.write(line)

    _training_mode(method, settings)
    with Interrupt() as interrupt:
        if resume is not None and (unscored := resume.get("unscored")):  # that evaluation failed
            report(dict(unscored), True)
            save(1)
        for step, micro_batches in zip(range(first, end), batches(first, end), strict=True):
            # Dropout and noise depend only on seed, step and process, so that a resumed run repeats them.
            progress = Progress(step, last_step)
            torch.manual_seed(_step_seed(settings.seed, step, rank))
            set_rates(optimisers, rate_factor(step, settings.steps, settings.schedule, settings.power, settings.warmup))

            # Forward and backward; the weights change only if every loss on every process is finite.
            steps = list(_backward(runner, micro_batches, progress, training.scaler, settings))
            stop = check_finite(steps, micro_batches, progress, interrupt.requested, _gradient_norm(training))
            _update(training, settings.clip)
            method.after_step(progress)
            if training.average is not None:
                training.average.update_parameters(method.predictor())
            for stream in method.streams:
                if publish is not None and (weights := method.draw_weights(stream)) is not None:
                    publish(stream, step, weights.detach())
            training.step = step + 1
            seen = sum(len(samples.image) for each in micro_batches for samples in each.values())
            throughput.step(distributed.world_size() * seen)
            for sink in listeners:
                sink.tick(training.step)

            # Evaluations and log lines depend only on the step, not on where a session started or stopped.
            due = evaluate is not None and _evaluation_due(training.step, settings)
            saving = settings.save_every is not None and training.step % settings.save_every == 0
            line: dict[str, Any] = {}
            if due or training.step in (1, last_step) or training.step % settings.log_every == 0:
                line = {"step": training.step, **averaged(steps), "lr": rates(optimisers)}
                if training.scaler.is_enabled():
                    line["skipped_steps"] = training.skipped
            early = due and (saving or stop or training.step == end)
            if early:  # if the evaluation fails, no step is lost
                save(settings.keep_checkpoints, unscored=line)
            if line:
                report(line, due)

            # A later signal counts only if there is a single process, since several must agree.
            stop = (stop or (interrupt.requested and not distributed.active())) and training.step < end
            if saving or stop or training.step == end:
                save(1 if early else settings.keep_checkpoints)
            if stop:
                break
    finished = training.step >= last_step
    predictor = training.predictor().eval()
    return Outcome(training.step, finished, stop, training.last, training.best, predictor, training.skipped)


def _start(
    method: Method,
    optimisers: Sequence[Optimizer],
    settings: Settings,
    resume: Mapping[str, Any] | None,
    sharding: "Sharding | None",
) -> TrainingState:
    method.to(settings.device)
    if settings.channels_last and sharding is None:  # FSDP's shards are contiguous
        method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    scaler = GradScaler(settings.device.type, enabled=settings.precision == "fp16")
    average = None
    if settings.ema is not None:
        average = average_of(sharding.copy_of_predictor() if sharding else method.predictor(), settings.ema)
        if sharding is not None:
            sharding.shard(average.module)
    training = TrainingState(method, optimisers, scaler, average, sharding=sharding)
    if resume is not None:
        with fitting():
            training.load_state_dict(resume)
    return training


def _runner(training: TrainingState, settings: Settings) -> Callable[..., Step]:
    """Return the method, wrapped in DDP if several processes train it unsharded, and compiled if requested."""
    runner: Any = training.method
    if distributed.active() and training.sharding is None:
        devices = [settings.device] if settings.device.type == "cuda" else None
        with warnings.catch_warnings():
            # torch 2.15 deprecates broadcast_buffers; its replacement would overwrite restored buffers
            warnings.simplefilter("ignore", FutureWarning)
            options: dict[str, Any] = {"broadcast_buffers": False, "find_unused_parameters": True}
            runner = DistributedDataParallel(runner, device_ids=devices, **options)
    return torch.compile(runner) if settings.compile else runner  # type: ignore[no-any-return]


def losses_of(runner: Callable[..., Step], micro_batch: MicroBatch, progress: Progress, settings: Settings) -> Step:
    """Compute the method's losses for a micro-batch on the device, with autocast if the precision needs it."""
    device = settings.device
    batch = {name: samples.to(device, settings.channels_last) for name, samples in micro_batch.items()}
    with torch.autocast(device.type, _DTYPES[settings.precision], enabled=settings.precision != "fp32"):
        return runner(batch, progress)


def _backward(
    runner: Any, micro_batches: Sequence[MicroBatch], progress: Progress, scaler: GradScaler, settings: Settings
) -> Iterator[Step]:
    """Compute the losses and gradients of the micro-batches; the last one all-reduces the gradients."""
    count = len(micro_batches)
    for number, micro_batch in enumerate(micro_batches, start=1):
        alone = number < count and hasattr(runner, "no_sync")
        with runner.no_sync() if alone else nullcontext():
            step = losses_of(runner, micro_batch, progress, settings)
            total = torch.stack(list(step.losses.values())).sum()
            scaler.scale(total / count).backward()  # type: ignore[no-untyped-call]
        yield Step({name: value.detach() for name, value in step.losses.items()}, step.metrics)


def _gradients(optimiser: Optimizer) -> list[Tensor]:
    return [p.grad for group in optimiser.param_groups for p in group["params"] if p.grad is not None]


def _gradient_norm(training: TrainingState) -> Tensor | None:
    """Return the global gradient norm, 0-dim, or None with a scaler, which skips steps whose gradients overflow."""
    gradients = [gradient for optimiser in training.optimisers for gradient in _gradients(optimiser)]
    if training.scaler.is_enabled() or not gradients:
        return None
    norm: Any = nn.utils.get_total_norm(gradients)
    return norm if training.sharding is None else norm.full_tensor()  # type: ignore[no-any-return]


def _update(training: TrainingState, clip: float | None) -> None:
    """Step every optimiser that has gradients; clipping uses the global gradient norm."""
    scaler = training.scaler
    scale = scaler.get_scale()
    moving = [optimiser for optimiser in training.optimisers if _gradients(optimiser)]
    if clip is not None:
        for optimiser in moving:
            scaler.unscale_(optimiser)
        nn.utils.clip_grad_norm_(training.method.parameters(), clip)
    for optimiser in moving:
        scaler.step(optimiser)
    scaler.update()
    training.skipped += scaler.get_scale() < scale  # the scale decreases if and only if a step was skipped
    for optimiser in training.optimisers:
        optimiser.zero_grad(set_to_none=True)


def _evaluate(
    training: TrainingState, settings: Settings, evaluate: Evaluate, keep_best: KeepBest | None
) -> dict[str, Any]:
    """Evaluate the predictor, record the result, keep the best and return to training mode."""
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
        if isinstance(module, _BATCH_NORMS):
            module.eval()


def _evaluation_due(step: int, settings: Settings) -> bool:
    every = settings.eval_every
    return every is not None and (step == settings.steps or (every > 0 and step % every == 0))


def _step_seed(seed: int, step: int, rank: int) -> int:
    digest = hashlib.blake2b(f"{seed}/{step}/{rank}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1  # 63 bits
