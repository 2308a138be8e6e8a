"""The check before the weights move: is every loss and the gradient finite, and does anybody want to end?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fuzzyseg.engine.checkpoint import Training
from fuzzyseg.methods.base import Progress, Step
from fuzzyseg.ops import distributed

Names = Mapping[str, Sequence[str]]
"""The images of a micro-batch, by stream."""


class NonFiniteLoss(ArithmeticError):
    """A loss, or the gradient, is NaN or infinite. The message names the terms, the step (as logged) and the images.

    Raised on all processes together, before the optimiser's step: the weights are those of the step before.
    """


def check(
    steps: Sequence[Step], names: Sequence[Names], progress: Progress, asked: bool, gradient: Tensor | None = None
) -> bool:
    """Whether any process was `asked` to end. steps, names: one for each micro-batch. gradient: its norm, 0-dim.

    The accelerator is waited for once, and the processes agree in the same message. Raises NonFiniteLoss.
    """
    losses = torch.stack([torch.stack([value.detach().float() for value in step.losses.values()]) for step in steps])
    bad = ~losses.isfinite().all()
    if gradient is not None:  # a NaN at a pixel that does not count shows here alone
        bad = bad | ~gradient.isfinite()
    flags = distributed.mean(torch.stack([bad.float(), torch.full_like(losses[0, 0], float(asked))]))
    any_bad, any_asked = flags.tolist()
    if any_bad:
        raise NonFiniteLoss(_message(steps, names, losses, progress))
    return bool(any_asked)


def gradient_norm(training: Training) -> Tensor | None:
    """The norm of all gradients, 0-dim; None under a scaler, which leaves out steps whose gradients overflow."""
    groups = [group for optimiser in training.optimisers for group in optimiser.param_groups]
    gradients = [p.grad for group in groups for p in group["params"] if p.grad is not None]
    return None if training.scaler.is_enabled() or not gradients else torch.nn.utils.get_total_norm(gradients)


def _message(steps: Sequence[Step], names: Sequence[Names], losses: Tensor, progress: Progress) -> str:
    found = []
    for step, streams, row in zip(steps, names, losses.tolist(), strict=True):
        terms = [f"{term} is {value}" for term, value in zip(step.losses, row, strict=True) if value - value != 0]
        images = "; ".join(f"{stream}: {', '.join(images)}" for stream, images in streams.items())
        if not terms and losses.isfinite().all():
            terms = ["its gradient is NaN or infinite"]
        if terms:
            found.append(f"{' and '.join(terms)} (images: {images})")
    # A process without trouble of its own must say what the others found: only the first one's message may be seen.
    own = torch.tensor(list("\n".join(found).encode()), dtype=torch.uint8, device=losses.device)
    everywhere = bytes(distributed.gather(own).tolist()).decode() if distributed.active() else "\n".join(found)
    return (
        f"step {progress.step + 1}: the loss is not finite: {everywhere}\n"
        f"The weights are those of step {progress.step}. "
        "Look at these images and their masks; a lower optim.lr, optim.clip, or train.precision=fp32 may help."
    )
