"""A step's losses and metrics: finiteness check, averages over micro-batches and processes, peak memory."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from fuzzyseg.methods.base import Progress, Step
from fuzzyseg.ops import distributed
from fuzzyseg.run.logs import peak_memory_mib


class Samples(Protocol):
    """The part of a stream's batch that the training loop uses."""

    image: Tensor
    name: list[str]

    def to(self, device: torch.device, channels_last: bool = False) -> Self:
        """Return the same samples on `device`."""


MicroBatch = Mapping[str, Samples]


class NonFiniteLoss(ArithmeticError):
    """Raised if a loss or the gradient is NaN or infinite; names the losses, the step (as logged) and the images.

    It is raised on all processes before the optimiser step, so the weights are those of the previous step.
    """


def check_finite(
    steps: Sequence[Step],
    micro_batches: Sequence[MicroBatch],
    progress: Progress,
    stop: bool,
    gradient: Tensor | None = None,
) -> bool:
    """Check that losses and gradient are finite, and return whether any process requested a stop.

    steps: one per micro-batch. stop: this process's request. gradient: its norm, 0-dim. Synchronises once with the
    accelerator and uses one collective operation. Raises NonFiniteLoss.
    """
    losses = torch.stack([torch.stack([value.detach().float() for value in step.losses.values()]) for step in steps])
    bad = ~losses.isfinite().all()
    if gradient is not None:  # a NaN at an ignored pixel only appears in the gradient
        bad = bad | ~gradient.isfinite()
    flags = distributed.mean(torch.stack([bad.float(), torch.full_like(losses[0, 0], float(stop))]))
    any_bad, any_stop = flags.tolist()
    if any_bad:
        raise NonFiniteLoss(_message(steps, micro_batches, losses, progress))
    return bool(any_stop)


def _message(steps: Sequence[Step], micro_batches: Sequence[MicroBatch], losses: Tensor, progress: Progress) -> str:
    failures, damaged = [], []
    for step, streams, row in zip(steps, micro_batches, losses.tolist(), strict=True):
        terms = [f"{term} is {value}" for term, value in zip(step.losses, row, strict=True) if value - value != 0]
        images = "; ".join(f"{stream}: {', '.join(samples.name)}" for stream, samples in streams.items())
        if not terms and losses.isfinite().all():
            terms = ["its gradient is NaN or infinite"]
        failures += [f"{' and '.join(terms)} (images: {images})"] * bool(terms)
        for samples in streams.values():
            finite = samples.image.flatten(1).isfinite().all(1).tolist()
            damaged += [name for name, ok in zip(samples.name, finite, strict=True) if not ok]
    # Every process reports the findings of all, since the user may only see rank 0's message.
    failures, damaged = (list(chain(*distributed.gather_objects(each))) for each in (failures, damaged))
    cause = "a lower optim.lr, optim.clip or train.precision=fp32 may help"
    if progress.step == 0:  # no weight has changed yet
        cause = "check data.mean, the initial weights and train.precision"
    cause = f"The images are finite, so {cause}; check supervised.class_weights and data.std."
    if damaged:
        cause = f"These images are not finite after normalisation: {', '.join(damaged)}. Check the files and data.std."
    first = f"step {progress.step + 1}: the loss is not finite: {chr(10).join(failures)}"
    return f"{first}\nThe weights are those of step {progress.step}. {cause}"


def averaged(steps: Sequence[Step]) -> dict[str, Any]:
    """Return the means of `loss` (the sum), `losses` and `metrics` as floats, or as lists for tensors with axes.

    NaN means that there was nothing to measure and is excluded from the mean; the mean of no values is NaN. Must be
    called on every process; all must have the same losses and metrics.
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


def memory_mib(device: torch.device) -> float | None:
    """Return the peak memory of the accelerator, or of the process on other devices, in MiB."""
    return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else peak_memory_mib()
