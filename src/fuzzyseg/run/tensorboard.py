"""Log lines as TensorBoard scalars; the only module of `run` that imports torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from fuzzyseg.run.logs import Sink


class TensorBoard(Sink):
    """Writes each number of a line under its path: `losses/sup`, for lists `metrics/k/0`, `metrics/k/1`, ..."""

    def __init__(self, folder: str | Path, *, keep_to: int = 0) -> None:
        """Write into `folder`; scalars of an earlier writer after step `keep_to` are hidden."""
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
