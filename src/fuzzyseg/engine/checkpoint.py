"""Checkpoint files: written atomically with a checksum, and loaded without executing code."""

import hashlib
import logging
import os
import pickle
import struct
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import EllipsisType
from typing import Any, BinaryIO

import torch
from torch import Tensor

from fuzzyseg.engine.state import TrainingState
from fuzzyseg.engine.step_values import NonFiniteLoss
from fuzzyseg.ops import distributed
from fuzzyseg.run.files import replacing

FORMAT = 1
"""Layout version of `last.pt`; files with any other version are rejected."""

_CONTENT: dict[str, type | tuple[type, ...]] = {
    "step": int,
    "last": (dict, type(None)),
    "best": (dict, type(None)),
    "modules": dict,
    "replicas": dict,
    "optimisers": list,
    "scaler": dict,
    "streams": dict,
    "config": dict,
    "unscored": (dict, EllipsisType),
}
"""Keys of a checkpoint and the types of their values; `...` marks an optional key."""

_MARK = b"fuzzyseg sha256 "
_log = logging.getLogger(__name__)


class CheckpointError(ValueError):
    """Raised if a checkpoint cannot be used. The message names the file or setting and recommends an action."""


def save(path: Path, state: Mapping[str, Any], *, keep: int = 1) -> None:
    """Write `state` atomically and keep the previous `keep` - 1 checkpoints: last.pt, last-1.pt, last-2.pt, ..."""
    with replacing(path) as file:
        try:
            torch.save({"format": FORMAT, "versions": {"torch": str(torch.__version__)}, **state}, file)
        except RuntimeError as error:
            if isinstance(error.__context__, KeyboardInterrupt):  # an interrupted writer cannot be closed
                raise KeyboardInterrupt from None
            raise
        _seal(file)
        file.flush()
        os.fsync(file.fileno())  # before the older files are renamed
        kept = [path, *(path.with_name(f"{path.stem}-{number}{path.suffix}") for number in range(1, keep))]
        for newer, older in reversed(list(pairwise(kept))):
            if newer.is_file():
                os.replace(newer, older)


def save_training(
    path: Path, training: TrainingState, more: Mapping[str, Any], device: torch.device, keep: int
) -> None:
    """Save the state and `more` on rank 0. Raises NonFiniteLoss on all ranks if any has non-finite weights."""
    state = {**training.state_dict(), **more}
    bad = torch.tensor(float(not finite(state["modules"])), device=device)
    if float(distributed.mean(bad)):
        raise NonFiniteLoss(
            f"step {training.step}: the weights are not finite, so no checkpoint was written; the last one is kept. A "
            "lower optim.lr, optim.clip, or train.precision=fp32 may help"
        )
    if distributed.rank() == 0:
        save(path, state, keep=keep)
    distributed.barrier()


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Load the newest checkpoint that is intact and finite: `path` or, with a warning, an older one.

    If there is none, raises the CheckpointError for the newest file.
    """
    first: CheckpointError | None = None
    for file in candidates(path):
        try:
            state = _load(file, device)
        except CheckpointError as error:
            first = first or error
            continue
        if first is not None or file != path:
            reason = first or f"{path}: is missing"
            _log.warning("%s; continuing from the checkpoint before it, %s, step %d", reason, file, state["step"])
        return state
    raise first or CheckpointError(f"{path}: cannot be read (no such file)")


def candidates(path: Path) -> list[Path]:
    """Return the existing checkpoints of a run, newest first."""
    older = sorted(path.parent.glob(f"{path.stem}-[0-9]*{path.suffix}"), key=lambda file: (len(file.name), file.name))
    return [file for file in (path, *older) if file.is_file()]


def finite(values: Any) -> bool:
    """Return whether all floating-point tensors in nested containers are finite."""
    if isinstance(values, Tensor):
        return not values.is_floating_point() or bool(values.isfinite().all())
    if isinstance(values, Mapping):
        return all(finite(value) for value in values.values())
    return all(finite(value) for value in values) if isinstance(values, list | tuple) else True


def _seal(file: BinaryIO) -> None:
    """Append a zip archive's SHA-256 as its comment, whose length is stored in the preceding two bytes."""
    file.seek(-2, os.SEEK_END)
    file.write(struct.pack("<H", len(_MARK) + 64))
    size = file.tell()
    file.seek(0)
    file.write(_MARK + _digest(file, size))


def _digest(file: BinaryIO, size: int) -> bytes:
    """Return the SHA-256 of the next `size` bytes as hexadecimal digits."""
    digest = hashlib.sha256()
    while size > 0 and (part := file.read(min(size, 1 << 20))):
        digest.update(part)
        size -= len(part)
    return digest.hexdigest().encode()


def _intact(path: Path) -> bool:
    """Return whether a file matches its checksum or, if written by an earlier version, its archive's CRCs."""
    size = len(_MARK) + 64
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - size))
        comment = file.read()
        if comment.startswith(_MARK):
            file.seek(0)
            return comment == _MARK + _digest(file, path.stat().st_size - size)
    with zipfile.ZipFile(path) as archive:
        return not archive.comment and archive.testzip() is None


def _load(path: Path, device: torch.device | str) -> dict[str, Any]:
    advice = "restore a copy or choose another --out"
    try:
        if not _intact(path):
            raise CheckpointError(f"{path}: is damaged (its checksum differs); {advice}")
        state = torch.load(path, map_location=device, weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from None
    except CheckpointError:
        raise
    except Exception as error:  # a damaged archive can fail in any way
        reason = str(error).partition("\n")[0] or type(error).__name__
        if isinstance(error, pickle.UnpicklingError):  # its message recommends loading without weights_only
            reason = "it contains objects other than tensors and plain values"
        raise CheckpointError(f"{path}: is damaged or not a checkpoint of fuzzyseg ({reason}); {advice}") from None
    version = "use the version of fuzzyseg that wrote it"
    file_format = state.get("format") if isinstance(state, dict) else None
    if not isinstance(file_format, int) or file_format != FORMAT:  # a tensor has no truth value
        raise CheckpointError(f"{path}: found checkpoint format {file_format!r}, expected {FORMAT}; {version}")
    for key, kinds in _CONTENT.items():
        if not isinstance(state.get(key, ...), kinds):
            what = f"{key} is of type {type(state[key]).__name__}" if key in state else f"{key} is missing"
            raise CheckpointError(f"{path}: is not a complete checkpoint ({what}); {version}")
    if state["step"] < 0:
        raise CheckpointError(f"{path}: found step {state['step']}, expected 0 or more; {advice}")
    if not finite(state["modules"]):
        raise CheckpointError(f"{path}: has weights that are not finite; {advice}")
    return dict(state)


@contextmanager
def fitting() -> Iterator[None]:
    """Convert the errors raised when a state does not fit, which can be of many types, to a CheckpointError."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, LookupError, ValueError, TypeError, AttributeError) as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(
            f"the checkpoint does not fit this method and its settings ({type(error).__name__}: {reason}); use the "
            "version of fuzzyseg that wrote it, or another --out"
        ) from None


def check_resumable(saved: Mapping[str, Any], config: Mapping[str, Any], allowed: set[str]) -> None:
    """Check the nested settings of a checkpoint against this run's.

    Only the dotted keys in `allowed` may differ. Raises CheckpointError, which lists every other key that differs and
    both of its values.
    """
    old, new = dict(leaves(saved)), dict(leaves(config))

    def shown(value: Any) -> str:
        return "not set" if value is None else repr(value)

    lines = [
        f"{key}: the checkpoint was made with {shown(old.get(key))}, this run has {shown(new.get(key))}"
        for key in sorted(old.keys() | new.keys())
        if key not in allowed and old.get(key) != new.get(key)
    ]
    if lines:
        lines.append(f"Resume with the same settings (except {', '.join(sorted(allowed))}) or choose another --out.")
        raise CheckpointError("\n".join(lines))


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted name and value of each nested setting."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", list(value) if isinstance(value, tuple) else value
