"""Atomic writing of files, and the errors of a full or read-only disk."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""Errors of a disk that takes no more: full, above a quota or a size, or read-only."""

_OS_ERROR = re.compile(r"\(os error (\d+)\)")


def disk_error(error: BaseException, path: Path) -> OSError | None:
    """The OSError for `path` if an error says, or hides, that the disk takes no more; else None.

    torch raises a RuntimeError in the place of the OSError; safetensors raises its own with the number in the text.
    """
    number = next((int(text) for text in _OS_ERROR.findall(str(error))), None)
    for each in (error, error.__context__):
        number = each.errno if isinstance(each, OSError) else number
    return OSError(number, os.strerror(number), str(path)) if number in UNWRITABLE and number is not None else None


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """A context in which the error of a full or read-only disk becomes an OSError for `path`."""
    try:
        yield
    except Exception as error:
        found = disk_error(error, path)
        if found is None:
            raise
        raise found from None


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A binary file, readable and writable, that replaces `path` if the block ends without an error.

    Raises an OSError for `path` if the disk takes no more; no part of a file is left.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with naming(path):
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
    """Write a UTF-8 text atomically. Bytes of file names that are no UTF-8 become escapes, as in JSON and YAML."""
    with replacing(path) as file:
        file.write(text.encode("utf-8", "backslashreplace"))


def sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk, so that no rename is lost; does nothing on Windows."""
    if os.name == "posix":
        opened = os.open(path, os.O_RDONLY)
        with suppress(OSError):  # not every file system can
            os.fsync(opened)
        os.close(opened)
