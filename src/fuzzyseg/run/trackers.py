"""Logging of metrics to TensorBoard, trackio or Weights & Biases, if the package is installed."""

import os
from collections.abc import Iterator, Mapping
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fuzzyseg.run.logs import Sink


def available(package: str = "tensorboard") -> bool:
    """Return whether a package is installed."""
    try:
        return find_spec(package) is not None
    except ValueError:  # sys.modules contains None in its place
        return False


class TensorBoard(Sink):
    """Sink that writes each number in a line under its path: `losses/sup`, `metrics/k/0`, `metrics/k/1`, ..."""

    def __init__(self, folder: str | Path, *, keep_to: int = 0) -> None:
        """Open a writer into `folder`; events of an earlier writer past step `keep_to` are purged.

        Raises ValueError if tensorboard is not installed.
        """
        if not available():
            raise ValueError(
                "train.tensorboard: found true, but tensorboard is not installed; pip install 'fuzzyseg[tensorboard]', "
                "or set it to auto or false"
            )
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=keep_to + 1)  # type: ignore[no-untyped-call]

    def write(self, line: dict[str, Any]) -> None:
        """Write a line."""
        for name, value in _scalars({key: value for key, value in line.items() if key != "step"}):
            self._writer.add_scalar(name, value, line["step"])  # type: ignore[no-untyped-call]
        self._writer.flush()  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Close the file."""
        self._writer.close()  # type: ignore[no-untyped-call]


class Tracker(Sink):
    """Sink that writes the same numbers to trackio or wandb, which share the functions `init`, `log` and `finish`.

    Storage and network access are configured through their environment variables: `WANDB_MODE=offline`,
    `TRACKIO_SPACE_ID`, ...
    """

    def __init__(self, to: str, project: str, folder: str | Path, config: Mapping[str, Any], *, keep_to: int = 0):
        """Open a run named after `folder`; a resumed run continues after step `keep_to`.

        to: trackio or wandb. config: stored with the metrics. Raises ValueError if the package is not installed.
        """
        if not available(to):
            raise ValueError(f"track.to: found {to}, which is not installed; pip install {to}, or set track.to=null")
        if to == "wandb":
            import wandb as tracker
        else:
            import trackio as tracker
        self._package = tracker
        path = Path(folder).resolve()
        # Both resume by a key: trackio by name, wandb by an id, which must be unique to the folder.
        resumed: dict[str, Any] = {"resume": "allow"}
        if to == "wandb":
            resumed |= {"id": sha256(os.fsencode(path)).hexdigest()[:16], "dir": str(path)}
        self._package.init(project=project, name=path.name, config=dict(config), **resumed)
        self._kept = keep_to

    def write(self, line: dict[str, Any]) -> None:
        """Write a line, unless it was written before the run was resumed."""
        if line["step"] > self._kept:
            numbers = dict(_scalars({key: value for key, value in line.items() if key != "step"}))
            self._package.log(numbers, step=line["step"])

    def close(self) -> None:
        """End the run and wait until all data is written."""
        self._package.finish()


def _scalars(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _scalars(item, f"{name}/{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _scalars(item, f"{name}/{number}")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield name, float(value)
