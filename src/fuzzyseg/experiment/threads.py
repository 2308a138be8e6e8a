"""Number of CPU threads used in training."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import nn

from fuzzyseg.ops.module_mode import evaluating
from fuzzyseg.run.folder import RunFolder

GAIN = 0.95
"""A larger number of threads is used only if it reduces the time of a forward pass to less than this fraction."""


@contextmanager
def cpu_threads(
    wanted: int | Literal["auto"], network: nn.Module | None, shape: tuple[int, int, int, int], run: RunFolder | None
) -> Iterator[str | None]:
    """Set the number of threads during training. Yields a message for the user if the number was measured.

    wanted: number of threads. `auto` uses the number recorded in `run` (None: not resumed), so that rounding is the
    same. For a new run, it uses OMP_NUM_THREADS if set, otherwise the fastest number for a forward pass of `network`
    (None: not on the CPU) on images of `shape`. On a busy machine, many threads can be far slower than few, because
    each operation waits for the slowest thread.
    """
    before, text = torch.get_num_threads(), None
    if wanted != "auto":
        torch.set_num_threads(wanted)
    elif run is not None and run.environment.is_file():
        known = run.read(run.environment).get("hardware", {}).get("threads")
        torch.set_num_threads(known if isinstance(known, int) and known > 0 else before)
    elif network is not None and "OMP_NUM_THREADS" not in os.environ and before > 1:
        chosen = fastest_threads(network, shape, before)
        torch.set_num_threads(chosen)
        text = f"using {chosen} of {before} CPU threads, the fastest number for this network (train.threads)"
    try:
        yield text
    finally:
        torch.set_num_threads(before)


def fastest_threads(network: nn.Module, shape: tuple[int, int, int, int], limit: int) -> int:
    """Return the fastest number of threads for a forward pass without gradients: `limit`, half of it, ..., or 1."""
    image, counts = torch.zeros(shape), []
    while limit >= 1:
        counts.append(limit)
        limit //= 2
    best, least = 1, float("inf")
    with torch.no_grad(), evaluating(network):
        for count in reversed(counts):
            torch.set_num_threads(count)
            seconds = min(_seconds(network, image) for _ in range(3))
            if seconds < GAIN * least:
                best, least = count, seconds
    return best


def _seconds(network: nn.Module, image: torch.Tensor) -> float:
    start = time.perf_counter()
    network(image)
    return time.perf_counter() - start
