"""Losses and metrics of a step, averaged over micro-batches and processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fuzzyseg.methods.base import Step
from fuzzyseg.ops import distributed


def averaged(steps: Sequence[Step]) -> dict[str, Any]:
    """`loss` (the sum), `losses` and `metrics` as floats, or lists for tensors with axes.

    NaN means "nothing to measure" and is left out of the mean; a mean of nothing is NaN. Call it on every process; all
    must have the same losses and metrics.
    """
    device = next(iter(steps[0].losses.values())).device  # a metric may be on another one
    rows = torch.stack(
        [torch.cat([value.detach().to(device).float().reshape(-1) for value in _values(step)]) for step in steps]
    )
    known = ~rows.isnan()
    sums = torch.stack([torch.where(known, rows, 0.0).sum(0), known.float().sum(0)])
    total, count = distributed.mean(sums)
    flat = (total / count).cpu()
    values = [
        part.reshape(like.shape).tolist()
        for part, like in zip(
            flat.split([value.numel() for value in _values(steps[0])]), _values(steps[0]), strict=True
        )
    ]
    losses = dict(zip(steps[0].losses, values, strict=False))
    metrics = dict(zip(steps[0].metrics, values[len(losses) :], strict=True))
    return {"loss": sum(losses.values()), "losses": losses, "metrics": metrics}


def _values(step: Step) -> list[Tensor]:
    return [*step.losses.values(), *step.metrics.values()]
