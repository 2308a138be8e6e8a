"""Run folder: file paths, and rules for writing into it."""

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fuzzyseg.run.files import UNWRITABLE

LOCK = ".lock"
"""Name of the lock file."""
LOCK_TIMEOUT = 7.0
"""Seconds to wait for the lock, which data workers of a killed training process may hold for up to five seconds."""

_log = logging.getLogger(__name__)


class RunFolderError(ValueError):
    """Raised for a run folder that cannot be used; the message states the remedy."""


class RunFolder:
    """Paths of the files of a training run. The constructor does not access the disk; `lock` creates the folder."""

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
        self.evaluation_dir = self.path / "evaluation"
        self.evaluation = self.evaluation_dir / "evaluation.json"

    @contextmanager
    def lock(self, status: str = "") -> Iterator[None]:
        """Context manager that creates the folder if necessary and locks it against other training runs.

        The operating system releases the lock of a dead process; its partial files are deleted. Raises RunFolderError
        if another process, or another run in this one, holds the lock. An OSError caused by a full or read-only disk
        is re-raised with a message that explains how to resume; status: replaces that message.
        """
        lock = FileLock(self.path / LOCK, timeout=LOCK_TIMEOUT)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except NotImplementedError:
            _log.warning("%s: its file system does not support locks; do not start another training in it", self.path)
        except (Timeout, RuntimeError):  # RuntimeError: held by this thread
            message = f"{self.path}: is in use by another training or sweep; wait, stop it, or choose another --out"
            raise RunFolderError(message) from None
        except OSError as error:
            raise self._unusable(error) from None
        try:
            for part in (*self.path.glob("*.part"), *self.path.glob(".*.part")):
                shutil.rmtree(part) if part.is_dir() else part.unlink(missing_ok=True)
            yield
        except OSError as error:
            if error.errno not in UNWRITABLE:
                raise
            progress = f"{self.last_pt} is complete" if self.last_pt.is_file() else "there is no checkpoint yet"
            status = status or f"{progress}: free disk space, then repeat the command with --resume"
            advice = f"cannot be written ({error.strerror}); {status}"
            raise OSError(error.errno, advice, error.filename or str(self.path)) from None
        finally:
            lock.release()

    def check_empty(self, *, resume: bool) -> None:
        """Raise RunFolderError if a new run's folder has files other than those written before the first checkpoint."""
        if resume:
            return
        run_files = {self.path / LOCK, self.config, self.split, self.environment, self.metrics, self.tensorboard_dir}
        run_files |= {self.path / "wandb"}  # written with track.to=wandb
        try:
            files = set(self.path.iterdir())
            ours = run_files if self.path / LOCK in files else set()  # without a lock, config.yaml is the user's
            existing = min(files - ours, default=None)
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._unusable(error) from None
        if existing is not None:
            advice = "add --resume to continue that run, or choose another --out"
            raise RunFolderError(f"{self.path}: is not empty (found {existing.name}); {advice}")

    def _unusable(self, error: OSError) -> RunFolderError:
        return RunFolderError(f"{self.path}: cannot be used as a run folder ({error.strerror}); choose another --out")

    @property
    def has_checkpoint(self) -> bool:
        """Whether the run can be resumed, if necessary from an earlier checkpoint."""
        return self.last_pt.is_file() or any(self.path.glob("last-[1-9]*.pt"))

    @staticmethod
    def read(path: Path) -> dict[str, Any]:
        """Return the content of a JSON file of the run. Raises RunFolderError if it is damaged."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(content, dict):
                raise ValueError(f"found a {type(content).__name__}, expected an object")
        except (OSError, ValueError, RecursionError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise RunFolderError(f"{path}: cannot be read as a record of a run ({reason}); restore the file") from None
        return content
