"""Utilities for buffers that differ between processes, such as batch-norm statistics."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn

from fuzzyseg.ops import distributed


def gather_buffers(module: nn.Module) -> dict[str, Tensor]:
    """Return the buffers that differ between the N processes, stacked: (N,...) on the CPU; {} for one process."""
    if not distributed.active():
        return {}
    rows = {name: distributed.gather(buffer.unsqueeze(0)) for name, buffer in module.named_buffers()}
    return {name: row.cpu() for name, row in rows.items() if not bool((row == row[:1]).all())}


def restore_buffers(module: nn.Module, rows: Mapping[str, Tensor]) -> None:
    """Load this process's buffers from a `gather_buffers` result; do nothing if the number of processes differs."""
    for name, buffer in module.named_buffers():
        if name in rows and len(rows[name]) == distributed.world_size():
            buffer.copy_(rows[name][distributed.rank()])


@contextmanager
def first_process_buffers(module: nn.Module) -> Iterator[None]:
    """Temporarily broadcast rank 0's buffers, so that all ranks evaluate the saved model."""
    if not distributed.active():
        yield
        return
    values = [buffer.clone() for buffer in module.buffers()]
    for buffer in module.buffers():
        buffer.copy_(distributed.gather(buffer.unsqueeze(0))[0])
    try:
        yield
    finally:
        for buffer, value in zip(module.buffers(), values, strict=True):
            buffer.copy_(value)
