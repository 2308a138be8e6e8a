"""Dry run of training: time and memory of the first steps and of an evaluation."""

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import Optimizer

from fuzzyseg.engine import Settings, fit
from fuzzyseg.engine.step_values import memory_mib
from fuzzyseg.engine.trainer import Batches
from fuzzyseg.experiment.validation import Scoring
from fuzzyseg.inference import Predictor, evaluate
from fuzzyseg.methods import Method
from fuzzyseg.ops import distributed
from fuzzyseg.run.logs import Sink

if TYPE_CHECKING:
    from fuzzyseg.engine.sharding import Sharding

STEPS = 3
"""Number of training steps. The first is not timed, because it also allocates memory and selects algorithms."""
GIB = 1024
"""MiB per GiB."""


class Clock(Sink):
    """Records the end time of each step."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def tick(self, step: int) -> None:
        """Record the time."""
        self.ends.append(time.monotonic())

    def write(self, line: dict[str, Any]) -> None:
        """Discard the line."""


def dry_run(
    method: Method,
    optimisers: Sequence[Optimizer],
    settings: Settings,
    batches: Batches,
    scoring: Scoring,
    sharding: "Sharding | None" = None,
) -> list[str]:
    """Train for `STEPS` steps, evaluate one image, and return messages about time and memory. Writes no run folder.

    Extrapolates linearly: assumes that every step takes as long as the second and third, and every evaluated image as
    long as the one with the largest file. Must be called on every process.
    """
    clock = Clock()
    short = replace(settings, stop_at=min(STEPS, settings.steps), eval_every=None, save_every=None)
    start = time.monotonic()
    outcome = fit(method, batches, optimisers, short, sinks=[clock], sharding=sharding)
    ends = clock.ends or [time.monotonic()]  # only the first process has a clock
    timed = ends if len(ends) > 1 else [start, *ends]
    step = (timed[-1] - timed[0]) / (len(timed) - 1)
    total = settings.steps * step
    lines = [f"dry run of {outcome.step} steps: {step:.2f} s per step, {_clock(total)} for {settings.steps} steps"]
    if settings.eval_every is not None and scoring.items:
        item = max(scoring.items, key=lambda each: each.image.stat().st_size)
        predictor = Predictor(outcome.predictor, scoring.card_at(0), scoring.device)
        start = time.monotonic()
        evaluate(predictor, [item], **scoring.settings.model_dump(exclude={"diagnose", "gallery"}))
        once = (time.monotonic() - start) * -(-len(scoring.items) // distributed.world_size())
        times = 1 if settings.eval_every == 0 else -(-settings.steps // settings.eval_every)
        total += times * once
        evaluations = "1 evaluation" if times == 1 else f"{times} evaluations"
        lines.append(f"evaluation of {len(scoring.items)} images: {_clock(once)}; {evaluations} in this run")
    memory = memory_mib(settings.device)
    if memory is not None:
        lines.append(f"peak memory: {memory / GIB:.1f} GiB{_of_total(settings.device)}")
    return [*lines, f"whole training: about {_clock(total)}; the dry run wrote no run folder"]


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _of_total(device: torch.device) -> str:
    return f" of {torch.cuda.mem_get_info(device)[1] / 2**30:.1f}" if device.type == "cuda" else ""
