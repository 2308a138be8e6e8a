"""Atomic file writes, and errors caused by full or read-only disks."""

import errno
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""Error numbers of failed writes: disk full, over quota, file too large, or read-only file system."""

_OS_ERROR = re.compile(r"\(os error (\d+)\)")


def fingerprint(path: Path) -> str:
    """Return a hash of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def disk_error(error: BaseException, path: Path) -> OSError | None:
    """Return an OSError for `path` if an error is caused by a full or read-only disk, otherwise None.

    torch raises a RuntimeError instead of the OSError; safetensors raises its own exception type, with the error number
    in the message.
    """
    number = next((int(text) for text in _OS_ERROR.findall(str(error))), None)
    for each in (error, error.__context__):
        number = each.errno if isinstance(each, OSError) else number
    return OSError(number, os.strerror(number), str(path)) if number in UNWRITABLE and number is not None else None


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Context manager that converts errors caused by a full or read-only disk to an OSError for `path`."""
    try:
        yield
    except Exception as error:
        converted = disk_error(error, path)
        if converted is None:
            raise
        raise converted from None


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Yield a binary file, readable and writable, that replaces `path` if the block ends without an error.

    Raises an OSError for `path` if the disk is full or read-only; no partial file is left.
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
    """Write UTF-8 text atomically. Undecodable bytes of file names become escapes, as in JSON and YAML."""
    with replacing(path) as file:
        file.write(text.encode("utf-8", "backslashreplace"))


def sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to disk, so that renames persist; does nothing on Windows."""
    if os.name == "posix":
        opened = os.open(path, os.O_RDONLY)
        with suppress(OSError):  # not supported by every file system
            os.fsync(opened)
        os.close(opened)
