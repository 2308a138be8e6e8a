"""Estimates made before the first step: memory of a training step, and number of evaluations."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from fuzzyseg.config import ConfigError, TrainConfig
from fuzzyseg.data.io.header import file_size
from fuzzyseg.data.views import Batch
from fuzzyseg.engine import Settings
from fuzzyseg.engine.trainer import Batches, losses_of
from fuzzyseg.experiment.validation import Scoring, evenly_spaced
from fuzzyseg.methods import Method, Progress
from fuzzyseg.ops import distributed
from fuzzyseg.run.memory import free_bytes

SMALL = 2**14
"""Upper bound on the bytes per pixel and network; if this much memory is free, nothing is measured."""
MARGIN = 1.15
"""Safety factor for memory that is not counted; measured as 1.08 to 1.14 for four methods and networks."""
GB = 1e9


def with_memory_check(source: Batches, method: Method, settings: Settings) -> Batches:
    """Wrap `source` to raise ConfigError before the first batch if there is too little memory for a step.

    Checks only on a CPU, where a process that runs out of memory is killed without a message (a GPU raises an error).
    Activation memory is linear in the number of images, so it is extrapolated from the tensors that a forward pass of
    two images saves for the backward pass. Weights and buffers are unchanged. Training uses the same random numbers as
    without the check, because the engine seeds each step.
    """

    def checked(start: int, stop: int) -> Iterator[Any]:
        batches = iter(source(start, stop))
        for first in batches:
            _check(first, start, method, settings)
            return itertools.chain([first], batches)  # no overhead in later steps
        return batches

    return checked


def _check(micro_batches: Sequence[Mapping[str, Any]], step: int, method: Method, settings: Settings) -> None:
    first = next(iter(micro_batches[0].values()))
    images, total, size = len(first.image), len(first.image) * len(micro_batches[0]), first.size
    if settings.device.type != "cpu":
        return
    free = float(distributed.mean(torch.tensor(float(free_bytes() or 0)))) / distributed.per_machine()
    fixed = 2 * sum(p.nbytes for p in method.parameters() if p.requires_grad)  # gradients, optimiser
    if not free or fixed + total * size[0] * size[1] * method.learners * SMALL < free:
        return
    few = min(2, images)
    batch = {name: _first(samples.to(settings.device), few) for name, samples in micro_batches[0].items()}
    each = MARGIN * kept_bytes(batch, step, method, settings) / few
    if fixed + images * each <= free:
        return
    room = max(0.0, free - fixed) / each  # images that fit
    parts = next((n for n in range(2, images // 2 + 1) if images % n == 0 and images // n <= room), 0)
    sides = [int(side * (room / images) ** 0.5) // 32 * 32 for side in size]
    ways = [f"train.accumulate={parts * len(micro_batches)} (the batch in parts)"] * (parts > 0)
    ways += [f"--crop {sides[0]}x{sides[1]}"] * (min(sides) >= 64)
    raise ConfigError(
        f"memory: a batch of {total} images of {size[0]}x{size[1]} takes {(fixed + images * each) / GB:.1f} GB or "
        f"more, not counting evaluation, data workers and their caches; {free / GB:.1f} GB are free. Try "
        f"{', or '.join([*ways, 'a smaller --batch or --encoder'])}"
    )


def evaluation_interval(train: TrainConfig, method: Method, scoring: Scoring) -> int:
    """Return the default of `train.eval_every`: ten evaluations, or fewer if ten took over a tenth of the training.

    A training step is assumed to take three times as long per pixel and network as a prediction. The number is computed
    from sizes, not measured, so that a run resumed with equal settings evaluates after the same steps.
    """
    step = 3 * len(method.streams) * train.batch * train.crop[0] * train.crop[1] * method.learners
    some = evenly_spaced(scoring.items, 20)
    sizes = [scoring.material.card.image_size or file_size(item.image) for item in some]
    each = sum(height * width for height, width in sizes) / max(1, len(some))
    views = sum(scale**2 for scale in scoring.settings.scales) * (2 if scoring.settings.flip else 1)
    if train.k_maps > 0 or scoring.settings.diagnose == "every":
        views += 1
    number = 0.1 * train.steps * step / max(1.0, len(scoring.items) * each * views)
    return 0 if number < 2 else -(-train.steps // min(10, int(number)))


def kept_bytes(micro_batch: Mapping[str, Any], step: int, method: Method, settings: Settings) -> int:
    """Return the bytes that the forward pass of a micro-batch saves for the backward pass."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    before = [
        (module, name, buffer, buffer.clone())
        for module in method.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = losses_of(method, micro_batch, Progress(step, settings.steps), settings)
    del result
    for module, name, buffer, value in before:  # a growing memory bank replaces its buffers
        setattr(module, name, buffer.copy_(value))
    for tensor in (*method.parameters(), *method.buffers()):
        kept.pop(tensor.untyped_storage().data_ptr(), None)
    return sum(kept.values())


def _first(batch: Batch, count: int) -> Batch:
    """Return a copy of the first `count` samples of a batch."""

    def cut(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(cut, value))
        return value[:count].clone() if isinstance(value, Tensor) else value and value[:count]

    return Batch(**{field.name: cut(getattr(batch, field.name)) for field in fields(batch)})
