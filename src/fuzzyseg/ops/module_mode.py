"""Context managers that temporarily change the training mode of modules."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Put modules in evaluation mode: no dropout, and batch norm uses its running statistics without updating them.

    On exit, even after an error, each submodule returns to its previous mode, so that frozen batch norm stays frozen.
    """
    training_modules = [part for module in modules for part in module.modules() if part.training]
    for part in training_modules:
        part.training = False
    try:
        yield
    finally:
        for part in training_modules:
            part.training = True


@contextmanager
def without_dropout(*modules: nn.Module, update_statistics: bool = True) -> Iterator[None]:
    """Put all submodules except batch norm in evaluation mode, which disables dropout and stochastic depth.

    Batch norm in training mode normalises by batch statistics and updates its running statistics, unless
    `update_statistics` is False; batch norm in evaluation mode stays in it. Flags and modes are restored on exit, even
    after an error.
    """
    parts = {part for module in modules for part in module.modules()}
    norms = [(part, part.track_running_stats) for part in parts if isinstance(part, _BatchNorm) and part.training]
    with evaluating(*modules):
        for norm, tracks in norms:
            norm.training = True
            norm.track_running_stats = tracks and update_statistics  # False: the buffers are neither read nor updated
        try:
            yield
        finally:
            for norm, tracks in norms:
                norm.track_running_stats = tracks
