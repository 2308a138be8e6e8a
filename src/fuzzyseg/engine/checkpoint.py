"""Checkpoint files: written atomically, loaded without running code."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from fuzzyseg.run.files import replacing

FORMAT = 1
"""Layout of `last.pt`; files of another layout are refused."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message names the file or the setting and what to do."""


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write `state` atomically."""
    with replacing(path) as file:
        torch.save({"format": FORMAT, "versions": {"torch": str(torch.__version__)}, **state}, file)


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read what `save` wrote. Raises CheckpointError if the file is damaged or of another kind."""
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise CheckpointError(
            f"{path}: is damaged or not a checkpoint of fuzzyseg ({reason}); restore a copy or choose another --out"
        ) from None
    found = state.get("format") if isinstance(state, dict) else None
    if found != FORMAT:
        raise CheckpointError(
            f"{path}: found checkpoint format {found!r}, expected {FORMAT}; use the version of fuzzyseg that wrote it"
        )
    return dict(state)


def check_resumable(saved: Mapping[str, Any], config: Mapping[str, Any], allowed: set[str]) -> None:
    """Compare the nested settings of a checkpoint with those of this run.

    Only the dotted keys in `allowed` may differ. Raises CheckpointError naming each other key and both values.
    """
    old, new = dict(_leaves(saved)), dict(_leaves(config))

    def shown(value: Any) -> str:
        return "not set" if value is None else repr(value)

    lines = [
        f"{key}: the checkpoint was made with {shown(old.get(key))}, this run has {shown(new.get(key))}"
        for key in sorted(old.keys() | new.keys())
        if key not in allowed and old.get(key) != new.get(key)
    ]
    if lines:
        lines.append(
            f"Resume with the same settings (only {', '.join(sorted(allowed))} may differ) or use another --out."
        )
        raise CheckpointError("\n".join(lines))


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", list(value) if isinstance(value, tuple) else value
