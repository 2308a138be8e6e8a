"""On-disk cache of decoded, resized images and masks, shared by processes and later runs."""

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
"""Everything that determines the pixels: path, timestamps and size of the file, and reading options."""

FORMAT = 3
"""Part of every key on disk. Increment it when a code change alters the decoded pixels (reading, levels, masks,
resizing) or the layout of the cache files."""

_ENTRY = re.compile(r"[0-9a-f]{32}\.pixels")
_PART = re.compile(r"[0-9a-f]{32}\.\d+\.\d+\.part")


@dataclass(frozen=True)
class Entry:
    """A decoded, resized file and its original size (H, W)."""

    array: NDArray[Any]
    original: Size


class DiskCache:
    """Cache of arrays as files in a folder, limited to `limit` bytes across all processes.

    Opening a cache deletes the least recently used files beyond the limit. After that, entries that do not fit are not
    stored. Damaged files are deleted. If storing fails (full disk, read-only folder, no lock within a second), the
    process uses the cache read-only from then on.
    """

    def __init__(self, folder: str | Path, limit: int) -> None:
        """Open or create the folder. Raises DataError."""
        self.folder, self.limit = Path(folder), limit
        self._used, self._writable = self.folder / "used", True
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            os.listdir(self.folder)
        except OSError as error:
            raise DataError(f"{self.folder}: cannot store a cache ({error.strerror}); set data.cache_dir") from None
        with suppress(OSError, NotImplementedError), self._lock():
            self._used.write_text(str(self._tidy()))

    def __reduce__(self) -> tuple[Any, ...]:
        return DiskCache, (self.folder, self.limit)

    def get(self, key: Key) -> Entry | None:
        """Return the entry, or None if it is not cached. The array may be modified."""
        path = self._path(key)
        try:
            with path.open("rb") as file:
                height, width = np.load(file, allow_pickle=False).tolist()
                entry = Entry(np.load(file, allow_pickle=False), (height, width))
        except OSError:  # missing, no permission or too many open files: not damaged
            return None
        except (ValueError, EOFError):
            with suppress(OSError):
                path.unlink()
            return None
        with suppress(OSError):  # another user's file, or a read-only folder
            os.utime(path)
        return entry

    def put(self, key: Key, entry: Entry) -> None:
        """Store the entry if it fits. Only one process stores at a time, and files are written atomically."""
        path = self._path(key)
        if not self._writable or os.path.exists(path):  # unlike Path.exists, never raises
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
                        self._used.write_text(str(used))  # first: after a crash, it can only be too large
                        os.replace(part, path)
                finally:
                    part.unlink(missing_ok=True)
        except (OSError, ValueError, NotImplementedError):  # NotImplementedError: no locks on this file system
            self._writable = False

    def _lock(self) -> FileLock:
        return FileLock(self.folder / "lock", timeout=1.0)  # may raise filelock.Timeout, an OSError

    def _path(self, key: Key) -> Path:
        full_key = (FORMAT, PIL.__version__, *key)  # pixels also depend on the version of Pillow
        return self.folder / f"{hashlib.sha256(repr(full_key).encode()).hexdigest()[:32]}.pixels"

    def _tidy(self) -> int:
        """Delete partial files of killed processes and the least recently used files beyond the limit.

        Returns the bytes in use.
        """
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
    """Return the default of `data.cache_dir`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fuzzyseg" / "images"
