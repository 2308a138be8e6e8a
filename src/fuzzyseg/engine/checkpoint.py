"""The one file a training continues from: written atomically, loaded without running code."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.amp import GradScaler
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from fuzzyseg.engine.buffers import gather_buffers, restore_buffers
from fuzzyseg.methods.base import Method
from fuzzyseg.run.files import replacing

FORMAT = 1
"""Number of the layout of `last.pt`; a file of another number is refused."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be used: the message names the file or the setting and what to do."""


@dataclass
class Training:
    """Everything that moves while a method is trained, and hence all that a checkpoint holds.

    step: finished steps. last: the latest evaluation with its step. best: step and score of the best one.
    """

    method: Method
    optimisers: Sequence[Optimizer]
    scaler: GradScaler
    average: AveragedModel | None
    step: int = 0
    last: dict[str, Any] | None = None
    best: dict[str, Any] | None = None

    def predictor(self) -> nn.Module:
        """What is evaluated, exported and saved: the average of the weights where there is one."""
        return self.average.module if self.average is not None else self.method.predictor()

    def state(self) -> dict[str, Any]:
        """Plain containers and tensors. To be called on every process; the first one's result is the whole."""
        modules = {"method": self.method, "average": self.average}
        return {
            "format": FORMAT,
            "versions": {"torch": str(torch.__version__)},
            "step": self.step,
            "last": self.last,
            "best": self.best,
            "modules": {name: module.state_dict() for name, module in modules.items() if module is not None},
            "replicas": {name: gather_buffers(module) for name, module in modules.items() if module is not None},
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "scaler": self.scaler.state_dict(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state` gave."""
        self.step, self.last, self.best = state["step"], state["last"], state["best"]
        for name, module in (("method", self.method), ("average", self.average)):
            if module is not None:
                module.load_state_dict(state["modules"][name])
                restore_buffers(module, state["replicas"][name])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.scaler.load_state_dict(state["scaler"])


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write `state` so that `path` is, at every moment, the old file or the new one."""
    with replacing(path) as file:
        torch.save(dict(state), file)


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """What `save` wrote, its tensors on `device`. Raises CheckpointError if the file is damaged or of another kind."""
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise CheckpointError(
            f"{path}: is damaged or no checkpoint of fuzzyseg ({reason}); restore a copy or start with another --out"
        ) from None
    found = state.get("format") if isinstance(state, dict) else None
    if found != FORMAT:
        raise CheckpointError(
            f"{path}: found checkpoint format {found!r}, expected {FORMAT}; use the version of fuzzyseg that wrote it"
        )
    return dict(state)


def check_resumable(saved: Mapping[str, Any], config: Mapping[str, Any], allowed: set[str]) -> None:
    """Compare the nested settings of a checkpoint with those asked for.

    Only the dotted keys in `allowed` may differ. Raises CheckpointError naming each other key and both values.
    """
    old, new = dict(_leaves(saved)), dict(_leaves(config))

    def told(value: Any) -> str:
        return "not set" if value is None else repr(value)

    lines = [
        f"{key}: the checkpoint was made with {told(old.get(key))}, this run asks for {told(new.get(key))}"
        for key in sorted(old.keys() | new.keys())
        if key not in allowed and old.get(key) != new.get(key)
    ]
    if lines:
        lines.append(
            f"Resume with the same settings (only {', '.join(sorted(allowed))} may differ) or use another --out."
        )
        raise CheckpointError("\n".join(lines))


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", list(value) if isinstance(value, tuple) else value
