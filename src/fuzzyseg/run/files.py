"""Atomic writing of files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A binary file, readable and writable, that replaces `path` if the block ends without an error."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with part.open("w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        sync(path.parent)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text atomically."""
    with replacing(path) as file:
        file.write(text.encode("utf-8"))


def sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk, so that no rename is lost; does nothing on Windows."""
    if os.name == "posix":
        opened = os.open(path, os.O_RDONLY)
        with suppress(OSError):  # not every file system can
            os.fsync(opened)
        os.close(opened)
