"""Decoded, resized files that need not be decoded again: in memory, or on disk for all processes and later runs."""

from __future__ import annotations

import hashlib
import os
import re
import struct
import threading
import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from numpy.typing import NDArray

from fuzzyseg.data.loading.ledger import ledger
from fuzzyseg.data.sample import DataError, Size

Key = tuple[object, ...]
"""All that the pixels depend on: the file, its time and length, and how it is read. Another key is another entry."""

FORMAT = 1
"""Part of every key on disk. To be raised whenever this package makes other pixels of the same file (reading, levels,
masks, resizing) or lays out the files of the cache otherwise; else a later version is served what this one stored."""

_HEAD = struct.Struct("<8s8s5q")
"""Before an array on disk: mark, type, height and width that the file had, up to three sides (-1: no such side)."""
_MARK = b"fuzzyseg"
_ENTRY = re.compile(r"[0-9a-f]{32}\.pixels")
_PART = re.compile(r"[0-9a-f]{32}\.\d+\.\d+\.part")

_RECENTLY = 60.0
"""Seconds within which an entry that is used again need not be marked as used again."""
_MAPS = 16384
"""Files that a process maps, a quarter of what Linux allows; further ones are read each time."""
_PATIENCE = 1.0
"""Seconds to wait for other processes that store; after that, or after a failure, nothing is stored for `_RESPITE`."""
_RESPITE = 60.0


@dataclass(frozen=True)
class Entry:
    """A decoded, resized file, and the size (H, W) that it had."""

    array: NDArray[Any]
    original: Size


def stamp(path: Path) -> tuple[str, int, int, int]:
    """What tells a file from a later one of the same name. Raises DataError where there is none.

    Archives give all their files the same time, and files of numbers without compression have the same length: the
    time of the last change of the entry itself is taken too, which renaming and copying over cannot keep.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); restore the file") from None
    return os.path.abspath(path), status.st_mtime_ns, status.st_ctime_ns, status.st_size


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
    """Arrays as files in a folder: what one process decoded all others, and later runs, read.

    limit: bytes of the folder, however many processes store. What is over it when a cache is opened goes, the longest
    unused first; while it is open, what does not fit any more is not stored. A file that is damaged or was cut short is
    made anew. Files are mapped into memory, by torch, which keeps no descriptor for it: of these there are few. Files
    that others remove are counted until a cache is opened next.
    """

    def __init__(self, folder: str | Path, limit: int) -> None:
        """Opens, or makes, the folder. Raises DataError."""
        self.folder, self.limit = Path(folder), limit
        self._resume = -float("inf")
        self._mapped: dict[Key, Entry] = {}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            os.listdir(self.folder)
        except OSError as error:
            raise DataError(
                f"{self.folder}: cannot be used as a cache ({error.strerror}); set data.cache_dir"
            ) from None
        with suppress(OSError), ledger(self._ledger, _PATIENCE) as used:  # else it can still be read
            used.value = self._tidied()

    def __reduce__(self) -> tuple[Any, ...]:
        return DiskCache, (self.folder, self.limit)

    def get(self, key: Key) -> Entry | None:
        """The entry, read-only, or None."""
        if key in self._mapped:
            return self._mapped[key]
        path = self._path(key)
        try:
            with path.open("rb", buffering=0) as file:
                status = os.fstat(file.fileno())
                mapped = _map(path, status.st_size) if len(self._mapped) < _MAPS else None
                entry = _unpacked(_content(file, status.st_size) if mapped is None else mapped)
        except OSError:  # not there; or descriptors or rights are wanting, for which the entry cannot be blamed
            return None
        except ValueError:
            _removed(path)
            return None
        if time.time() - status.st_mtime > _RECENTLY:
            with suppress(OSError):  # another user's, or a folder to be read only
                os.utime(path)  # it is in use: the last to go
        if mapped is not None:
            self._mapped[key] = entry
        return entry

    def put(self, key: Key, entry: Entry) -> None:
        """Stores the entry if it fits, all at once, so that no other process sees half of it.

        One process stores at a time: then the sum is right, and a part that another one finds was left behind.
        """
        path = self._path(key)
        if time.monotonic() < self._resume or os.path.exists(path):  # which, unlike Path.exists, never raises
            return
        size = _HEAD.size + entry.array.nbytes
        part = path.with_suffix(f".{os.getpid()}.{threading.get_ident()}.part")
        try:
            with ledger(self._ledger, _PATIENCE) as used:
                if used.value + size > self.limit or os.path.exists(path):
                    return
                try:
                    with part.open("wb") as file:
                        file.write(_head(entry))
                        file.write(np.ascontiguousarray(entry.array).data)
                    used.value += size  # first: whoever dies here has counted too much rather than too little
                    os.replace(part, path)
                finally:
                    _removed(part)
        except OSError:  # a full disk makes reading slow, not wrong
            self._resume = time.monotonic() + _RESPITE

    @property
    def _ledger(self) -> Path:
        return self.folder / "bytes-used"

    def _path(self, key: Key) -> Path:
        whole = (FORMAT, PIL.__version__, *key)  # decoders and resampling are Pillow's, and change with it
        return self.folder / f"{hashlib.sha256(repr(whole).encode()).hexdigest()[:32]}.pixels"

    def _tidied(self) -> int:
        """Removes what killed processes left, and what was unused longest until the rest fits; returns what is left."""
        entries, used = [], 0
        for path in self.folder.iterdir():
            with suppress(FileNotFoundError):  # another process was quicker
                if _ENTRY.fullmatch(path.name):
                    status = path.stat()
                    entries.append((status.st_mtime_ns, status.st_size, path))
                elif _PART.fullmatch(path.name):
                    size = path.stat().st_size
                    used += 0 if _removed(path) else size
        used += sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if used <= self.limit:
                break
            used -= size if _removed(path) else 0
        return used


def _head(entry: Entry) -> bytes:
    sides = (*entry.array.shape, -1, -1, -1)[:3]
    return _HEAD.pack(_MARK, entry.array.dtype.str.encode(), *entry.original, *sides)


def _map(path: Path, length: int) -> NDArray[np.uint8] | None:
    """The file's bytes in place; None where it cannot be mapped."""
    try:
        return torch.from_file(str(path), shared=False, size=length, dtype=torch.uint8).numpy()
    except RuntimeError:  # no memory, no descriptor, cut short meanwhile: reading tells
        return None


def _content(file: FileIO, length: int) -> NDArray[np.uint8]:
    """All bytes of a file of that length, in memory of their own. Raises ValueError if there are fewer."""
    content = np.empty(length, np.uint8)
    done = 0
    while done < length:  # the system may give less than what is asked for
        got = file.readinto(content[done:].data)
        if not got:
            raise ValueError("cut short meanwhile")
        done += got
    return content


def _unpacked(content: NDArray[np.uint8]) -> Entry:
    """The entry that a file's bytes are; its array lies in them. Raises ValueError if they are damaged."""
    head = content[: _HEAD.size].tobytes()
    if len(head) < _HEAD.size or not head.startswith(_MARK):
        raise ValueError("no entry")
    _, kind, height, width, *sides = _HEAD.unpack(head)
    try:
        dtype = np.dtype(kind.rstrip(b"\0").decode())
    except TypeError:
        raise ValueError("no type") from None
    if dtype.kind not in "biuf":
        raise ValueError("no numbers")
    shape = tuple(side for side in sides if side >= 0)
    array = content[_HEAD.size :].view(dtype).reshape(shape)  # ValueError where they do not fit
    array.flags.writeable = False  # who writes into a map would change what is read of it next
    return Entry(array, (height, width))


def _removed(path: Path) -> bool:
    """Whether this removed the file: there was one, and it could be removed."""
    try:
        path.unlink()
    except OSError:
        return False
    return True


def default_folder() -> Path:
    """Where caches lie if nothing else is said: the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fuzzyseg" / "images"
