"""Finding image files in a folder or with a glob pattern."""

import fnmatch
import glob
import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fuzzyseg.data.io.pillow import SUFFIXES, suffix_of
from fuzzyseg.data.sample import DataError

_SYSTEM = ("__MACOSX", "Thumbs.db", "desktop.ini", "@eaDir")
"""Files and folders that operating systems and file servers create."""


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is hidden or created by the system, and therefore silently ignored."""
    return name.startswith(".") or name in _SYSTEM


def names_in(folder: Path) -> list[str]:
    """Return the sorted names in a folder; folder names end with a slash."""
    return sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())


@dataclass
class Found:
    """Result of a search for image files.

    root: folder to which names are relative. files: image files, sorted. others: number of other files by suffix.
    """

    root: Path
    files: list[Path] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)


def counts(others: Counter[str]) -> str:
    """Format counts by suffix, such as `3 .heic, 1 .txt`."""
    return ", ".join(f"{count} {suffix}" for suffix, count in sorted(others.items()))


def find_images(source: str | Path) -> Found:
    """Find the image files below a folder, or those that match a pattern such as `photos/**/*.jpg`.

    Hidden files are skipped. Links to folders are followed, and each folder is searched once. Pipes, devices and other
    non-regular files are never images.
    """
    result, paths = Found(Path(source)), walk(Path(source))
    if not result.root.is_dir():
        parts = result.root.parts
        fixed = next((place for place, part in enumerate(parts) if glob.has_magic(part)), len(parts) - 1)
        root, pattern = Path(*parts[:fixed]), parts[fixed:]
        below = walk(root, None if "**" in pattern else len(pattern))
        result, paths = Found(root), (path for path in below if _matches(path.relative_to(root).parts, pattern))
    for path in paths:
        reason = why_not_image(path)
        if reason is None:
            result.files.append(path)
        else:
            result.others[reason] += 1
    result.files.sort()
    return result


def _matches(parts: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_matches(parts[start:], pattern[1:]) for start in range(len(parts) + 1))
    return bool(parts) and fnmatch.fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def why_not_image(path: Path) -> str | None:
    """Return the suffix or kind of a non-image file. Returns None for images, including broken links to images."""
    if suffix_of(path) not in SUFFIXES:
        return suffix_of(path) or "no suffix"
    try:
        return None if stat.S_ISREG(path.stat().st_mode) else "not a regular file"
    except OSError:
        return None


def why_not_file(path: Path) -> str:
    """Describe a path that is not a regular file, such as `is a pipe` or `does not exist`."""
    if not path.exists():
        return "does not exist"
    kinds = {"folder": path.is_dir, "pipe": path.is_fifo, "socket": path.is_socket}
    return f"is a {next((name for name, applies in kinds.items() if applies()), 'device')}"


def regular_files(folder: Path, pattern: str) -> list[Path]:
    """Return the sorted files in a folder that match a pattern. Raises DataError for pipes and devices."""
    files = sorted(path for path in folder.glob(pattern) if not path.is_dir())
    for path in files:
        if path.exists() and not path.is_file():
            raise DataError(f"{path}: {why_not_file(path)}; expected a text file: remove it")
    return files


def walk(folder: Path, depth: int | None = None) -> Iterator[Path]:
    """Yield the non-hidden files below a folder. depth: 1 for files in the folder itself; None: no limit."""
    visited = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in visited:  # links may form cycles
            folders.clear()
            continue
        visited.add(real)
        level = len(Path(place).relative_to(folder).parts) + 1
        folders[:] = sorted(name for name in folders if not is_hidden(name) and (depth is None or level < depth))
        yield from (Path(place, name) for name in sorted(names) if not is_hidden(name))
