"""Losses and metrics of a step: the NaN check, and averages over micro-batches and processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fuzzyseg.methods.base import Progress, Step
from fuzzyseg.ops import distributed

Names = Mapping[str, Sequence[str]]
"""Image names of a micro-batch, by stream."""


class NonFiniteLoss(ArithmeticError):
    """A loss or the gradient is NaN or infinite. The message names the terms, the step (as logged) and the images.

    Raised on all processes, before the optimiser's step: the weights are those of the previous step.
    """


def check_finite(
    steps: Sequence[Step], names: Sequence[Names], progress: Progress, stop: bool, gradient: Tensor | None = None
) -> bool:
    """Whether any process requests to `stop`. steps, names: one for each micro-batch. gradient: its norm, 0-dim.

    One synchronisation with the accelerator and one collective serve both questions. Raises NonFiniteLoss.
    """
    losses = torch.stack([torch.stack([value.detach().float() for value in step.losses.values()]) for step in steps])
    bad = ~losses.isfinite().all()
    if gradient is not None:  # a NaN at an ignored pixel shows in the gradient only
        bad = bad | ~gradient.isfinite()
    flags = distributed.mean(torch.stack([bad.float(), torch.full_like(losses[0, 0], float(stop))]))
    any_bad, any_stop = flags.tolist()
    if any_bad:
        raise NonFiniteLoss(_message(steps, names, losses, progress))
    return bool(any_stop)


def _message(steps: Sequence[Step], names: Sequence[Names], losses: Tensor, progress: Progress) -> str:
    found = []
    for step, streams, row in zip(steps, names, losses.tolist(), strict=True):
        terms = [f"{term} is {value}" for term, value in zip(step.losses, row, strict=True) if value - value != 0]
        images = "; ".join(f"{stream}: {', '.join(images)}" for stream, images in streams.items())
        if not terms and losses.isfinite().all():
            terms = ["its gradient is NaN or infinite"]
        if terms:
            found.append(f"{' and '.join(terms)} (images: {images})")
    # Every process reports what all found, since only the first one's message may be visible.
    own = torch.tensor(list("\n".join(found).encode()), dtype=torch.uint8, device=losses.device)
    everywhere = bytes(distributed.gather(own).tolist()).decode() if distributed.active() else "\n".join(found)
    return (
        f"step {progress.step + 1}: the loss is not finite: {everywhere}\n"
        f"The weights are those of step {progress.step}. "
        "Check these images and their masks; a lower optim.lr, optim.clip, or train.precision=fp32 may help."
    )


def averaged(steps: Sequence[Step]) -> dict[str, Any]:
    """`loss` (the sum), `losses` and `metrics` as floats, or lists for tensors with axes.

    NaN means "nothing to measure" and is left out of the mean; a mean of nothing is NaN. Call it on every process; all
    must have the same losses and metrics.
    """
    device = next(iter(steps[0].losses.values())).device  # a metric may be on another one
    values = [[*step.losses.values(), *step.metrics.values()] for step in steps]
    rows = torch.stack([torch.cat([v.detach().to(device).float().reshape(-1) for v in each]) for each in values])
    known = ~rows.isnan()
    sums = torch.stack([torch.where(known, rows, 0.0).sum(0), known.float().sum(0)])
    total, count = distributed.mean(sums)
    parts = (total / count).cpu().split([value.numel() for value in values[0]])
    means = [part.reshape(like.shape).tolist() for part, like in zip(parts, values[0], strict=True)]
    losses = dict(zip(steps[0].losses, means, strict=False))
    metrics = dict(zip(steps[0].metrics, means[len(losses) :], strict=True))
    return {"loss": sum(losses.values()), "losses": losses, "metrics": metrics}
