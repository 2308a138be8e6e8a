"""Run folder: paths of its files, and rules for writing into it."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fuzzyseg.run.files import UNWRITABLE, write_text
from fuzzyseg.run.logs import plain

LOCK = ".lock"
"""Name of the lock file."""
WAIT = 7.0
"""Seconds to wait for it: the data workers of a killed training, which share its lock, end within five."""

_log = logging.getLogger(__name__)


class RunFolderError(ValueError):
    """A run folder that cannot be used; the message says what to do."""


class RunFolder:
    """The files of one training. The constructor does not touch the disk; `open` does."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.split = self.path / "split.json"
        self.environment = self.path / "environment.json"
        self.metrics = self.path / "metrics.jsonl"
        self.result = self.path / "result.json"
        self.last_pt = self.path / "last.pt"
        self.model_dir = self.path / "model"
        self.best_dir = self.path / "best"
        self.tensorboard_dir = self.path / "tensorboard"
        self.maps_dir = self.path / "maps"
        self.analysis_dir = self.path / "analysis"

    @classmethod
    def open(cls, path: str | Path, *, resume: bool = False) -> RunFolder:
        """Make the folder, or check that it may be used. With several processes: on the first one only.

        Without `resume` the folder must be empty. With it, a run with a checkpoint is continued (`has_checkpoint`) and
        any other started. Raises RunFolderError.
        """
        folder = cls(path)
        folder._make()
        folder.check_empty(resume=resume)
        return folder

    def _make(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unusable(error) from None

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Context in which no other training can write into the folder, which is made if necessary.

        The system releases the lock of a process that has died. What such a process left half written is deleted.
        Raises RunFolderError if another process, or another training of this one, has the lock. An OSError of a disk
        that takes no more says what can be resumed.
        """
        self._make()
        lock = FileLock(self.path / LOCK, timeout=WAIT)
        try:
            lock.acquire()
        except NotImplementedError:
            _log.warning("%s: its file system has no locks; do not start another training in it", self.path)
        except (Timeout, RuntimeError):  # RuntimeError: held by this thread
            raise RunFolderError(
                f"{self.path}: another training or sweep runs in it; wait for it, stop it, or choose another --out"
            ) from None
        except OSError as error:
            raise self._unusable(error) from None
        try:
            for part in (*self.path.glob("*.part"), *self.path.glob(".*.part")):
                shutil.rmtree(part) if part.is_dir() else part.unlink(missing_ok=True)
            yield
        except OSError as error:
            if error.errno not in UNWRITABLE:
                raise
            stands = f"{self.last_pt} is complete" if self.last_pt.is_file() else "there is no checkpoint yet"
            advice = f"cannot be written ({error.strerror}); {stands}: make room, then repeat the command with --resume"
            raise OSError(error.errno, advice, error.filename or str(self.path)) from None
        finally:
            lock.release()

    def check_empty(self, *, resume: bool) -> None:
        """Raises RunFolderError if the folder is not empty and the run is not resumed."""
        if resume:
            return
        try:
            taken = next((file for file in self.path.iterdir() if file.name != LOCK), None)
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._unusable(error) from None
        if taken is not None:
            raise RunFolderError(
                f"{self.path}: is not empty (found {taken.name}); add --resume to continue that run, or choose another "
                "--out"
            )

    def _unusable(self, error: OSError) -> RunFolderError:
        return RunFolderError(f"{self.path}: cannot be used as a run folder ({error.strerror}); choose another --out")

    @property
    def has_checkpoint(self) -> bool:
        """Whether the run can be resumed, if need be from an earlier checkpoint."""
        return self.last_pt.is_file() or any(self.path.glob("last-[1-9]*.pt"))

    def write_config(self, text: str) -> None:
        """Store the resolved configuration (YAML)."""
        write_text(self.config, text)

    def write_split(self, split: dict[str, Any]) -> None:
        """Store the split, its policy and its hash."""
        self._write(self.split, split)

    def write_environment(self, environment: dict[str, Any]) -> None:
        """Store the result of `environment.collect`."""
        self._write(self.environment, environment)

    def write_result(self, result: dict[str, Any]) -> None:
        """Store the scores of the last and the best checkpoint. A number that is not finite becomes null."""
        self._write(self.result, result)

    @staticmethod
    def _write(path: Path, value: dict[str, Any]) -> None:
        write_text(path, json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")
