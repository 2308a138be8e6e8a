"""Training and evaluation mode for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Within it the modules are in evaluation mode: no dropout, batch norm by its statistics, which stay as they are.

    Afterwards each part is in the mode that it was in: frozen batch norm stays in evaluation mode.
    """
    held = [part for module in modules for part in module.modules() if part.training]
    for part in held:
        part.training = False
    try:
        yield
    finally:
        for part in held:
            part.training = True
