"""Estimates of what a training takes: memory before its first step, time after its third."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor

from fuzzyseg.config import ConfigError
from fuzzyseg.data.views import Batch
from fuzzyseg.engine import Settings
from fuzzyseg.engine.trainer import Batches, losses_of, memory_mib
from fuzzyseg.methods import Method, Progress
from fuzzyseg.ops import distributed
from fuzzyseg.run.logs import Sink
from fuzzyseg.run.memory import free_bytes

SMALL = 2**14
"""Bytes per pixel and network that no step needs: where so many are free, nothing is measured."""
MARGIN = 1.1
"""Memory of a step beyond what is counted; 1.08 to 1.14 were measured for four methods and networks."""
SLOW = 10.0
"""Seconds after which a first step says what it does."""
DAY = 24 * 3600.0
GB = 1e9


class Estimate(Sink):
    """Refuses a step that memory is too small for, tells what a long first step does, and how long the run will take.

    On a CPU only, where the system kills a process that takes too much, without a message: a GPU raises an error. The
    memory of a step grows with the number of images, so that the tensors that a forward pass of two of them keeps for
    the backward pass are counted, before the first step. Neither weights nor buffers change, and no random number of
    the training is drawn: the engine seeds each step.
    """

    def __init__(self, method: Method, settings: Settings, say: Callable[[str], None]) -> None:
        self.method, self.settings, self.say = method, settings, say
        self._doing, self._began, self._left = "", 0.0, 0
        self._seconds: list[float] = []
        self._timer = threading.Timer(SLOW, lambda: say(f"still in the first step after {SLOW:.0f} s: {self._doing}"))
        self._timer.daemon = True

    def batches(self, source: Batches) -> Batches:
        """The same batches; the memory is checked before the first one is handed on."""

        def watched(start: int, stop: int) -> Iterator[Any]:
            self._left, self._doing = stop - start, "reading images"
            self._timer.start()
            for step, micro_batches in zip(range(start, stop), source(start, stop), strict=True):
                if step == start:
                    self._check(micro_batches, step)
                yield micro_batches
                self._began = time.monotonic()

        return watched

    def tick(self, step: int) -> None:
        """Count the step; report the plan after the third one, whose time is that of the later ones."""
        self._timer.cancel()
        self._seconds.append(time.monotonic() - self._began)
        if len(self._seconds) != 3:
            return
        seconds = sum(self._seconds[1:]) / 2
        left, memory = self._left - 3, memory_mib(self.settings.device)
        text = f"plan: {seconds:.2g} s a step, {timedelta(seconds=round(seconds * left))} for {left} steps"
        text += "" if memory is None else f", {memory * 2**20 / GB:.1f} GB of memory"
        if seconds * left > DAY:
            text += f"; more than a day: --steps {int(DAY / seconds)} fit into one, half the --crop takes a quarter"
        self.say(text)

    def write(self, line: dict[str, Any]) -> None:
        """Log lines are not used."""

    def close(self) -> None:
        """Say nothing more."""
        self._timer.cancel()

    def _check(self, micro_batches: Sequence[Mapping[str, Any]], step: int) -> None:
        """Raise ConfigError if the memory is too small for a step."""
        micro_batch, device = micro_batches[0], self.settings.device
        first = next(iter(micro_batch.values()))
        images, total, size = len(first.image), len(first.image) * len(micro_batch), first.size
        self._doing = f"computing {total} images of {size[0]}x{size[1]} on {device}"
        known = free_bytes() if device.type == "cpu" else None
        free = float(distributed.mean(torch.tensor(float(known or 0)))) / distributed.world_size()
        fixed = 2 * sum(p.nbytes for p in self.method.parameters() if p.requires_grad)  # gradients, optimiser
        if not free or fixed + total * size[0] * size[1] * self.method.learners * SMALL < free:
            return
        few = min(2, images)
        each = (
            MARGIN
            * self._kept({name: _first(batch.to(device), few) for name, batch in micro_batch.items()}, step)
            / few
        )
        if fixed + images * each > free:
            room = max(0.0, free - fixed) / each  # images that fit
            parts = next((n for n in range(2, images // 2 + 1) if images % n == 0 and images // n <= room), 0)
            sides = [int(side * (room / images) ** 0.5) // 32 * 32 for side in size]
            ways = [f"train.accumulate={parts * len(micro_batches)} (the batch in parts)"] * (parts > 0)
            ways += [f"--crop {sides[0]}x{sides[1]}"] * (min(sides) >= 64)
            raise ConfigError(
                f"memory: a batch of {total} images of {size[0]}x{size[1]} takes {(fixed + images * each) / GB:.1f} GB "
                f"or more; {free / GB:.1f} GB are free. Try {', or '.join([*ways, 'a smaller --batch or --encoder'])}"
            )

    def _kept(self, micro_batch: Mapping[str, Batch], step: int) -> int:
        """Bytes that the forward pass of a micro-batch keeps for the backward pass."""
        kept: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        before = [buffer.clone() for buffer in self.method.buffers()]
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            result = losses_of(self.method, micro_batch, Progress(step, self.settings.steps), self.settings)
        del result
        for buffer, value in zip(self.method.buffers(), before, strict=True):
            buffer.copy_(value)
        for tensor in (*self.method.parameters(), *self.method.buffers()):
            kept.pop(tensor.untyped_storage().data_ptr(), None)
        return sum(kept.values())


def _first(batch: Batch, count: int) -> Batch:
    """The first samples of a batch, in memory of their own."""

    def cut(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(cut, value))
        return value[:count].clone() if isinstance(value, Tensor) else value and value[:count]

    return Batch(**{field.name: cut(getattr(batch, field.name)) for field in fields(batch)})
