"""Cache of decoded, resized images and masks in a folder that processes and later runs share."""

from __future__ import annotations

import hashlib
import os
import re
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from filelock import FileLock
from numpy.typing import NDArray

from fuzzyseg.data.sample import DataError, Size

Key = tuple[object, ...]
"""Everything that determines the pixels: the file, its times and length, and how it is read."""

FORMAT = 3
"""Part of every key on disk. Raise it when the package decodes the same file to other pixels (reading, levels, masks,
resizing) or changes the layout of the cache files."""

_ENTRY = re.compile(r"[0-9a-f]{32}\.pixels")
_PART = re.compile(r"[0-9a-f]{32}\.\d+\.\d+\.part")


@dataclass(frozen=True)
class Entry:
    """A decoded, resized file, and the size (H, W) of the file itself."""

    array: NDArray[Any]
    original: Size


class DiskCache:
    """Arrays as files in a folder, at most `limit` bytes of them, whatever number of processes store.

    Opening a cache removes the least recently used files beyond the limit; while it is open, entries that do not fit
    are not stored. Damaged files are removed. A process that cannot store (full disk, read-only folder, no lock within
    a second) stores nothing more; reading goes on.
    """

    def __init__(self, folder: str | Path, limit: int) -> None:
        """Open the folder, or make it. Raises DataError."""
        self.folder, self.limit = Path(folder), limit
        self._used, self._writable = self.folder / "used", True
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            os.listdir(self.folder)
        except OSError as error:
            raise DataError(f"{self.folder}: cannot hold a cache ({error.strerror}); set data.cache_dir") from None
        with suppress(OSError, NotImplementedError), self._lock():
            self._used.write_text(str(self._tidy()))

    def __reduce__(self) -> tuple[Any, ...]:
        return DiskCache, (self.folder, self.limit)

    def get(self, key: Key) -> Entry | None:
        """The entry, if any; its array is the caller's own."""
        path = self._path(key)
        try:
            with path.open("rb") as file:
                height, width = np.load(file, allow_pickle=False).tolist()
                entry = Entry(np.load(file, allow_pickle=False), (height, width))
        except OSError:  # missing, or too few descriptors or rights: no sign of damage
            return None
        except (ValueError, EOFError):
            with suppress(OSError):
                path.unlink()
            return None
        with suppress(OSError):  # another user's file, or a read-only folder
            os.utime(path)
        return entry

    def put(self, key: Key, entry: Entry) -> None:
        """Store the entry if it fits. One process stores at a time, and no process sees half of a file."""
        path = self._path(key)
        if not self._writable or os.path.exists(path):  # unlike Path.exists, it never raises
            return
        part = path.with_suffix(f".{os.getpid()}.{threading.get_ident()}.part")
        try:
            with self._lock():
                used = int(self._used.read_text())
                if used + entry.array.nbytes > self.limit or os.path.exists(path):
                    return
                try:
                    with part.open("wb") as file:
                        np.save(file, np.array(entry.original))
                        np.save(file, entry.array)
                        used += file.tell()
                    if used <= self.limit:
                        self._used.write_text(str(used))  # before the file appears: a crash counts too much, not less
                        os.replace(part, path)
                finally:
                    part.unlink(missing_ok=True)
        except (OSError, ValueError, NotImplementedError):  # the last: a file system without locks
            self._writable = False

    def _lock(self) -> FileLock:
        return FileLock(self.folder / "lock", timeout=1.0)  # raises filelock.Timeout, an OSError

    def _path(self, key: Key) -> Path:
        whole = (FORMAT, PIL.__version__, *key)  # pixels depend on the version of Pillow, too
        return self.folder / f"{hashlib.sha256(repr(whole).encode()).hexdigest()[:32]}.pixels"

    def _tidy(self) -> int:
        """Remove parts that killed processes left and the least recently used files beyond the limit; bytes left."""
        entries = []
        for path in self.folder.iterdir():
            with suppress(OSError):
                if _ENTRY.fullmatch(path.name):
                    entries.append((path.stat().st_mtime_ns, path.stat().st_size, path))
                elif _PART.fullmatch(path.name):
                    path.unlink()
        used = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if used <= self.limit:
                break
            with suppress(OSError):
                path.unlink()
                used -= size
        return used


def default_folder() -> Path:
    """The folder of the disk cache if `data.cache_dir` is not given."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fuzzyseg" / "images"
