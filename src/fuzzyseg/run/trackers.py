"""Metric logging to TensorBoard, trackio or Weights & Biases, if the package is installed."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fuzzyseg.run.logs import Sink

_log = logging.getLogger(__name__)


def available(package: str = "tensorboard") -> bool:
    """Return whether a package is installed."""
    return find_spec(package) is not None


class _Numbers(Sink):
    """Sink that logs each number in a line under its path: `losses/sup`, `metrics/k/0`, `metrics/k/1`, ...

    After an error it warns once and stops writing: training must not stop because a logger failed.
    """

    def __init__(self, name: str, kept: int, add: Callable[..., object], end: Callable[[], object]) -> None:
        """name: name used in the warning. kept: last step of an earlier session. add: called with numbers and step."""
        self._name, self._kept, self._add, self._end, self._failed = name, kept, add, end, False

    def write(self, line: dict[str, Any]) -> None:
        """Write a line, unless it was written before the run was resumed."""
        if line["step"] > self._kept and not self._failed:
            numbers = dict(_scalars({key: value for key, value in line.items() if key != "step"}))
            self._attempt(lambda: self._add(numbers, line["step"]))

    def close(self) -> None:
        """End the run and wait until all data is written."""
        self._attempt(self._end)

    def _attempt(self, function: Callable[[], object]) -> None:
        try:
            function()
        except Exception as error:  # trackers may raise anything, such as network errors
            if not self._failed:
                _log.warning("%s failed (%s); it receives no more data of this run", self._name, error or repr(error))
            self._failed = True


class TensorBoard(_Numbers):
    """Writer of TensorBoard's event files."""

    def __init__(self, folder: str | Path, *, keep_to: int = 0) -> None:
        """Open a writer into `folder`; events of an earlier writer past step `keep_to` are purged.

        Raises ValueError if tensorboard is not installed.
        """
        if not available():
            raise ValueError("train.tensorboard: not installed; pip install 'fuzzyseg[tensorboard]', or set it to auto")
        from torch.utils.tensorboard import SummaryWriter

        writer = SummaryWriter(str(folder), purge_step=keep_to + 1)  # type: ignore[no-untyped-call]

        def add(numbers: dict[str, float], step: int) -> None:
            for name, value in numbers.items():
                writer.add_scalar(name, value, step)  # type: ignore[no-untyped-call]
            writer.flush()  # type: ignore[no-untyped-call]

        super().__init__("tensorboard", 0, add, writer.close)


class Tracker(_Numbers):
    """A run in trackio or wandb, both of which provide `init`, `log` and `finish`.

    Storage and network access are configured through their environment variables: `WANDB_MODE=offline`,
    `TRACKIO_SPACE_ID`, ...
    """

    def __init__(self, to: str, project: str, folder: str | Path, config: Mapping[str, Any], *, keep_to: int = 0):
        """Open a run named after `folder`; a resumed run continues after step `keep_to`.

        to: trackio or wandb. config: stored with the metrics. Raises ValueError if the package is not installed, or
        cannot open the run.
        """
        if not available(to):
            raise ValueError(f"track.to: found {to}, which is not installed; pip install {to}, or set track.to=null")
        if to == "wandb":
            import wandb as tracker
        else:
            import trackio as tracker
        path = Path(folder).resolve()
        # Both resume by a key that must be unique to the folder: wandb by an id, trackio by the name.
        key = sha256(os.fsencode(path)).hexdigest()[:16]
        named = {"name": path.name, "id": key, "dir": str(path)} if to == "wandb" else {"name": f"{path.name}-{key}"}
        try:
            tracker.init(project=project, config=dict(config), resume="allow", **named)
        except Exception as error:
            raise ValueError(f"track.to: {to} cannot start ({error}); log in, or set track.to=null") from error
        super().__init__(to, keep_to, lambda numbers, step: tracker.log(numbers, step=step), lambda: tracker.finish())


def _scalars(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _scalars(item, f"{name}/{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _scalars(item, f"{name}/{number}")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield name, float(value)
