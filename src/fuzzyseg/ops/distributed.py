"""All collective operations of the package. With a single process, they return tensors unchanged."""

import os
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

S = TypeVar("S")
T = TypeVar("T")


def active() -> bool:
    """Return whether a process group of more than one process is active."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """Return the rank of this process."""
    return dist.get_rank() if active() else 0


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if active() else 1


def per_machine() -> int:
    """Return the number of processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", world_size())) if active() else 1


def mean(value: Tensor) -> Tensor:
    """Average a tensor over all processes, without gradient. Its shape must be the same in each process."""
    if not active():
        return value
    value = value.detach().clone()
    dist.all_reduce(value)
    return value / world_size()


def gather(value: Tensor) -> Tensor:
    """Concatenate the rows of all processes, in rank order, along the first axis; row counts may differ."""
    if not active():
        return value
    if value.dtype == torch.bool:  # not every backend supports bool
        return gather(value.to(torch.uint8)).bool()
    value = value.detach().contiguous()
    counts = [torch.zeros((), dtype=torch.long, device=value.device) for _ in range(world_size())]
    dist.all_gather(counts, torch.tensor(value.shape[0], device=value.device))
    longest = int(torch.stack(counts).max())
    padded = value.new_zeros((longest, *value.shape[1:]))
    padded[: value.shape[0]] = value
    parts = [torch.empty_like(padded) for _ in range(world_size())]
    dist.all_gather(parts, padded)
    return torch.cat([part[: int(count)] for part, count in zip(parts, counts, strict=True)])


def gather_objects(value: T) -> list[T]:
    """Return the values of all processes, in rank order. Any tensors in them must be on the CPU."""
    values = [value] * world_size()
    if active():
        dist.all_gather_object(values, value)
    return values


def divided(items: Sequence[S], measure: Callable[[S], T]) -> list[T]:
    """Divide the items among processes, and return `measure(item)` for each, in order. Tensors must be on the CPU."""
    parts = gather_objects([measure(item) for item in items[rank() :: world_size()]])
    return [parts[number % len(parts)][number // len(parts)] for number in range(len(items))]


def barrier() -> None:
    """Wait for all processes."""
    if active():
        dist.barrier()
