"""Environment of a run: versions, hardware, code version."""

import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("fuzzyseg", "torch", "torchvision", "segmentation-models-pytorch", "timm", "numpy", "pillow", "safetensors")
"""Packages whose versions are recorded."""

PACKAGE = Path(__file__).resolve().parents[1]
"""Folder of the package's sources."""


def process_number(name: str, default: int = 0) -> int:
    """Return WORLD_SIZE, RANK or LOCAL_RANK, as set by torchrun. Raises ValueError unless it is a whole number."""
    text = os.environ.get(name, str(default))
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{name}: found {text!r} in the environment; expected a number from torchrun: unset it")
    return int(text)


def first_process() -> bool:
    """Return whether this is torchrun's first process, or the only one. Raises ValueError as `process_number` does."""
    return process_number("WORLD_SIZE", 1) < 2 or process_number("RANK") == 0


def job() -> str | None:
    """Return an identifier of the torchrun process that started this one, or None. Restarts do not change it."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    try:
        started = Path(f"/proc/{os.getppid()}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except OSError:
        started = ""
    return f"{platform.node()} {os.getppid()} {started}"


def collect(facts: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the environment as plain values; None for values that cannot be detected.

    facts: further values from torch (threads, accelerator name), stored under `hardware`.
    """
    return {
        "command": list(sys.argv),
        "job": job(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: version_of(name) for name in PACKAGES},
        "hardware": {"cpu": _cpu(), "cores": cores(), "memory_mib": _memory_mib(), **(facts or {})},
        "code": code_version(),
    }


def version_of(name: str) -> str | None:
    """Return the version of a distribution; None if it is not installed, e.g. if fuzzyseg is run from source."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _cpu() -> str | None:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or None


def cores() -> int | None:
    """Return the number of CPUs available to this process, which a container or scheduler may limit."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _memory_mib() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    except (AttributeError, ValueError, OSError):
        return None


def code_version(package: Path = PACKAGE) -> dict[str, str | None]:
    """Return the version of the package's code: a hash of its source files, and the last commit that changed them.

    The hash distinguishes code with the same version number. commit: None if git is missing or does not track the
    package. Only git commands that do not read the working tree are used, because others may run programs named in the
    repository's configuration.
    """
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    committed = _git(package, "rev-list", "-1", "HEAD", "--", "__init__.py")
    commit = _git(package, "rev-list", "-1", "HEAD", "--", ".") if committed else None
    return {"sources": digest.hexdigest()[:16], "commit": commit}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
