"""Settings, state and result of training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from torch.amp import GradScaler
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fuzzyseg.engine.buffers import gather_buffers, restore_buffers
from fuzzyseg.methods.base import Method
from fuzzyseg.run.logs import SCORE

if TYPE_CHECKING:
    from fuzzyseg.engine.sharding import Sharding  # slow import: torch.distributed


@dataclass(frozen=True)
class Settings:
    """Settings of a training run."""

    steps: int
    """Total number of optimiser steps, on which the schedules are based."""
    device: torch.device
    seed: int = 0
    score: str = SCORE  # key in the evaluation; larger is better
    stop_at: int | None = None
    """Save and stop after this step, without changing the schedules or evaluations."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    clip: float | None = None
    """Maximum global gradient norm."""
    channels_last: bool = False
    compile: bool = False
    ema: float | None = None
    """Maximum decay of the predictor's EMA (`average_of`), which is evaluated and saved in its place. None: no EMA."""
    freeze_batch_norm: bool = False
    eval_every: int | None = 0
    """Steps between evaluations; the last step is always evaluated. 0: only the last step; None: no evaluation."""
    save_every: int | None = None
    """Steps between checkpoints; None: only at the end."""
    keep_checkpoints: int = 1
    log_every: int = 10
    schedule: str = "poly"
    power: float = 0.9
    warmup: int = 0


@dataclass
class TrainingState:
    """All state that changes during training, i.e. the content of a checkpoint.

    step: finished steps. last, best: the latest and the best evaluation, each with its `step`. skipped: number of steps
    that the fp16 scaler skipped because gradients overflowed. sharding: set if weights are sharded.
    """

    method: Method
    optimisers: Sequence[Optimizer]
    scaler: GradScaler
    average: AveragedModel | None
    step: int = 0
    last: dict[str, Any] | None = None
    best: dict[str, Any] | None = None
    skipped: int = 0
    sharding: "Sharding | None" = None

    def predictor(self) -> nn.Module:
        """Return the module to evaluate, export and save: the EMA, if there is one. Call it on every process."""
        predictor = self.average.module if self.average is not None else self.method.predictor()
        return predictor if self.sharding is None else self.sharding.whole(predictor)

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain containers and tensors. Call it on every process; rank 0's result is complete."""
        modules = self._modules()
        state = {
            "step": self.step,
            "last": self.last,
            "best": self.best,
            "skipped": self.skipped,
            "modules": {name: module.state_dict() for name, module in modules.items()},
            "replicas": {name: gather_buffers(module) for name, module in modules.items()},
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "scaler": self.scaler.state_dict(),
        }
        return state if self.sharding is None else self.sharding.gather(state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load the result of `state_dict`; `skipped` may be missing, as in checkpoints of earlier versions."""
        self.step, self.last, self.best = state["step"], state["last"], state["best"]
        self.skipped = state.get("skipped", 0)
        if self.sharding is not None:
            state = self.sharding.split(state, self._modules(), self.optimisers)
        for name, module in self._modules().items():
            module.load_state_dict(state["modules"][name])
            restore_buffers(module, state["replicas"][name])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.scaler.load_state_dict(state["scaler"])

    def _modules(self) -> dict[str, nn.Module]:
        modules = {"method": self.method, "average": self.average}
        return {name: module for name, module in modules.items() if module is not None}


@dataclass(frozen=True)
class Outcome:
    """Result of `fit`.

    step: finished steps. finished: whether all steps are done. interrupted: whether a signal stopped training before
    `steps` or `stop_at`. last, best: the latest and the best evaluation with its `step`, of this or an earlier session,
    if any. predictor: the module to export, in evaluation mode. skipped: steps skipped by the fp16 scaler.
    """

    step: int
    finished: bool
    interrupted: bool
    last: dict[str, Any] | None
    best: dict[str, Any] | None
    predictor: nn.Module
    skipped: int = 0


def average_of(predictor: nn.Module, decay: float) -> AveragedModel:
    """Return an EMA of weights and buffers, which equals the predictor after the first update.

    Later updates are average = d * average + (1 - d) * predictor with d = min(decay, (1 + n) / (10 + n)) after n
    updates, so that the first weights do not dominate a short run. n is the buffer `n_averaged`. Integer buffers
    (counters) are copied.
    """

    @torch.no_grad()
    def update(averages: Any, values: Any, count: Any) -> None:
        n, pairs = int(count), list(zip(averages, values, strict=True))
        if not averages[0].is_floating_point():
            for average, value in pairs:
                average.copy_(value)
            return
        mean: Any = get_ema_multi_avg_fn(min(decay, (1 + n) / (10 + n)))  # type: ignore[no-untyped-call]
        for sharded in (False, True):  # weights may be sharded, buffers are not; a call accepts one kind
            if kind := [pair for pair in pairs if hasattr(pair[0], "placements") == sharded]:
                mean(*map(list, zip(*kind, strict=True)), count)

    return AveragedModel(predictor, multi_avg_fn=update, use_buffers=True)
