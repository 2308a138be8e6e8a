"""Forwards of one network that can be compared: nothing random in them, and no statistics moved."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def steady(*modules: nn.Module, statistics: bool = False) -> Iterator[None]:
    """Within it two forwards of the same input agree: dropout is off, and batch-norm in training mode uses its batch.

    Running statistics stay as they are unless `statistics`. Batch-norm in evaluation mode stays so. Flags and modes are
    restored, also after an error.
    """
    every = [part for module in modules for part in module.modules()]
    modes = [(part, part.training) for part in every]
    norms = [part for part in every if isinstance(part, _BatchNorm) and part.training and part.track_running_stats]
    try:
        for part in every:
            if not (isinstance(part, _BatchNorm) and part.training):
                part.training = False
        for norm in norms if not statistics else ():
            norm.track_running_stats = (
                False  # in training mode: the batch's statistics, the buffers neither read nor moved
            )
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
        for part, mode in modes:
            part.training = mode
