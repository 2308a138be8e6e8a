"""A sum that several processes keep: one number in a small file, which one process at a time may read and change."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # not on Windows: the sum may then be wrong until it is next counted anew
    fcntl = None  # type: ignore[assignment]

_PAUSE = 0.005
"""Seconds between two attempts to be the one process."""


class Ledger:
    """The number, while this process alone has it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    @property
    def value(self) -> int:
        """The number; 0 in a new file."""
        self._file.seek(0)
        return int.from_bytes(self._file.read(8), "little")

    @value.setter
    def value(self, number: int) -> None:
        self._file.seek(0)
        self._file.write(number.to_bytes(8, "little"))


@contextmanager
def ledger(path: Path, patience: float) -> Iterator[Ledger]:
    """The ledger, made if there is none, and nobody else's until the end of the block.

    Raises OSError where it cannot be opened, TimeoutError (which is one) if others have it for `patience` seconds: one
    of them may have been stopped, and nobody should wait for it.
    """
    with _opened(path) as file:
        _lock(file, patience)
        try:
            yield Ledger(file)
        finally:
            if fcntl is not None:  # closing would not do: a process forked meanwhile has the file open too
                with suppress(OSError):
                    fcntl.flock(file, fcntl.LOCK_UN)


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("r+b", buffering=0)
    except FileNotFoundError:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        with suppress(OSError, AttributeError):  # who may write into the folder may count
            os.fchmod(descriptor, path.parent.stat().st_mode & 0o666)
        return os.fdopen(descriptor, "r+b", buffering=0)


def _lock(file: BinaryIO, patience: float) -> None:
    deadline = time.monotonic() + patience
    while fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TimeoutError("another process counts") from None
            time.sleep(_PAUSE)
        except OSError:  # a file system without locks: as on Windows
            return
        else:
            return
