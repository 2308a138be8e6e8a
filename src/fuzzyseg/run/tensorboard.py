"""Metrics as TensorBoard scalars, with the extra `[tensorboard]`."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fuzzyseg.run.logs import Sink


def available() -> bool:
    """Return whether the package tensorboard is installed."""
    return find_spec("tensorboard") is not None


class TensorBoard(Sink):
    """Sink that writes every number of a line under its path: `losses/sup`, `metrics/k/0`, `metrics/k/1`, ..."""

    def __init__(self, folder: str | Path, *, keep_to: int = 0) -> None:
        """Open a writer into `folder`; events of an earlier writer past step `keep_to` are purged.

        Raises ValueError if tensorboard is not installed.
        """
        if not available():
            raise ValueError(
                "train.tensorboard: found true, but tensorboard is not installed; pip install 'fuzzyseg[tensorboard]', "
                "or set it to auto or false"
            )
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=keep_to + 1)  # type: ignore[no-untyped-call]

    def write(self, line: dict[str, Any]) -> None:
        """Write a line."""
        for name, value in _scalars({key: value for key, value in line.items() if key != "step"}):
            self._writer.add_scalar(name, value, line["step"])  # type: ignore[no-untyped-call]
        self._writer.flush()  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Close the file."""
        self._writer.close()  # type: ignore[no-untyped-call]


def _scalars(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _scalars(item, f"{name}/{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _scalars(item, f"{name}/{number}")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield name, float(value)
