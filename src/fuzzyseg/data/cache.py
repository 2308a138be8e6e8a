"""Decoded, resized files that need not be decoded again: in memory, or memory-mapped on disk for all processes."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fuzzyseg.data.items import DataError

Size = tuple[int, int]
Key = tuple[object, ...]
"""All that the pixels depend on: the file, its time and length, and how it is read. Another key is another entry."""

TAIL = 16
"""Bytes behind an array on disk: the height and width that the file had."""


@dataclass(frozen=True)
class Entry:
    """A decoded, resized file, and the size (H, W) that it had."""

    array: NDArray[Any]
    original: Size


def stamp(path: Path) -> tuple[str, int, int]:
    """What tells a file from a later one of the same name. Raises DataError where there is none."""
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); restore the file") from None
    return str(path), status.st_mtime_ns, status.st_size


@dataclass
class MemoryCache:
    """The entries used last, `limit` bytes of them at most. Pickled without its content: each process fills its own."""

    limit: int
    entries: OrderedDict[Key, Entry] = field(default_factory=OrderedDict)
    used: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __reduce__(self) -> tuple[Any, ...]:
        return MemoryCache, (self.limit,)

    def get(self, key: Key) -> Entry | None:
        """The entry, which becomes the newest, or None."""
        with self.lock:
            entry = self.entries.get(key)
            if entry is not None:
                self.entries.move_to_end(key)
            return entry

    def put(self, key: Key, entry: Entry) -> None:
        """Keeps the entry if it fits at all; the oldest ones give way."""
        with self.lock:
            if entry.array.nbytes > self.limit or key in self.entries:
                return
            self.entries[key] = entry
            self.used += entry.array.nbytes
            while self.used > self.limit:
                _, old = self.entries.popitem(last=False)
                self.used -= old.array.nbytes


class DiskCache:
    """Arrays as files in a folder, mapped into memory: what one process decoded all others, and later runs, read.

    limit: bytes of the folder. What is over it when a cache is opened goes, the longest unused first; while it is open,
    what does not fit any more is not stored. A file that is damaged or was cut short is made anew.
    """

    def __init__(self, folder: str | Path, limit: int) -> None:
        """Opens, or makes, the folder. Raises DataError."""
        self.folder, self.limit = Path(folder), limit
        self._mapped: dict[Key, Entry] = {}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._used = self._within_limit()
        except OSError as error:
            raise DataError(
                f"{self.folder}: cannot be used as a cache ({error.strerror}); set data.cache_dir"
            ) from None

    def __reduce__(self) -> tuple[Any, ...]:
        return DiskCache, (self.folder, self.limit)

    def get(self, key: Key) -> Entry | None:
        """The entry, read-only, or None."""
        if key in self._mapped:
            return self._mapped[key]
        path = self._path(key)
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            with path.open("rb") as file:
                file.seek(-TAIL, os.SEEK_END)
                height, width = np.frombuffer(file.read(TAIL), "<i8").tolist()
            if path.stat().st_size != array.offset + array.nbytes + TAIL:
                raise ValueError("cut short")
            os.utime(path)  # it is in use: the last to go
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError):
            path.unlink(missing_ok=True)
            return None
        self._mapped[key] = Entry(array, (height, width))
        return self._mapped[key]

    def put(self, key: Key, entry: Entry) -> None:
        """Stores the entry if it fits, all at once, so that no other process sees half of it."""
        size = entry.array.nbytes + 1024
        if self._used + size > self.limit:
            return
        path = self._path(key)
        part = path.with_name(f"{path.stem}.{os.getpid()}.{threading.get_ident()}.part")
        try:
            with part.open("wb") as file:
                np.save(file, entry.array, allow_pickle=False)
                file.write(np.array(entry.original, "<i8").tobytes())
            os.replace(part, path)
            self._used += size
        except OSError:  # a full disk makes reading slow, not wrong
            part.unlink(missing_ok=True)
            self._used = self.limit

    def _path(self, key: Key) -> Path:
        return self.folder / f"{hashlib.sha256(repr(key).encode()).hexdigest()[:32]}.npy"

    def _within_limit(self) -> int:
        """Removes what was unused longest until the rest fits; returns the bytes that are left."""
        files = sorted((status.st_mtime_ns, status.st_size, path) for path, status in self._files())
        used = sum(size for _, size, _ in files)
        for _, size, path in files:
            if used <= self.limit:
                break
            path.unlink(missing_ok=True)
            used -= size
        return used

    def _files(self) -> list[tuple[Path, os.stat_result]]:
        found = []
        for path in self.folder.glob("*.npy"):
            try:
                found.append((path, path.stat()))
            except FileNotFoundError:  # another process was quicker
                continue
        return found


def default_folder() -> Path:
    """Where caches lie if nothing else is said: the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fuzzyseg" / "images"
