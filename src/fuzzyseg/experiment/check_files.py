"""Decoding of all files for a dataset check, in worker processes because decoders may crash."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fuzzyseg.config import DataConfig
from fuzzyseg.data import DataSet, Item
from fuzzyseg.data.check.files import FileInfo, Kind, inspect_file
from fuzzyseg.data.check.labels import MaskStatistics, mask_statistics
from fuzzyseg.data.io.pillow import pixel_limit
from fuzzyseg.data.labels.decode import mask_of
from fuzzyseg.experiment.worker_pool import TIMEOUT, WorkerFailure, map_isolated

T = TypeVar("T")
R = TypeVar("R")
Counter = Callable[[int, int], None]
Task = tuple[Path, Kind]

MIN_BYTES_PER_SECOND = 5e6
"""Lower bound on the decoding speed, in bytes per second."""


class Examiner:
    """Inspects files with these data settings. workers: number of processes. progress: called with (done, total)."""

    def __init__(self, data: DataConfig, workers: int | None, progress: Counter | None) -> None:
        self.data, self.workers, self.progress = data, workers, progress
        self._counted: dict[Path, MaskStatistics] = {}

    def inspect(self, items: Sequence[Item]) -> dict[Path, tuple[Kind, FileInfo]]:
        """Inspect each image and mask once. Returns path -> (kind, result)."""
        tasks: dict[Path, Task] = {}
        for item in items:
            tasks.setdefault(item.image, (item.image, "image"))
            if item.mask is not None:
                tasks.setdefault(item.mask, (item.mask, "mask"))
        # Images to be resized must fit into memory, so reading them in windows does not help.
        function = partial(_inspect_task, self.data.max_megapixels, self.data.image_size is None)
        results = zip(tasks.values(), self._each(function, list(tasks.values()), list(tasks)), strict=True)
        return {
            path: (
                kind,
                FileInfo(path, f"{_reason(path, value)}; open it in an image viewer")
                if isinstance(value, WorkerFailure)
                else value,
            )
            for (path, kind), value in results
        }

    def statistics(self, dataset: DataSet, items: Sequence[Item]) -> list[MaskStatistics]:
        """Return the mask statistics of the items. Each mask is decoded only once."""
        new = [item for item in items if item.mask not in self._counted]
        count = partial(_mask_task, len(dataset.classes), dataset.ignore_index, self.data.max_megapixels)
        paths = [mask_of(item) for item in new]
        for path, out in zip(paths, self._each(count, new, paths), strict=True):
            self._counted[path] = MaskStatistics(problem=_reason(path, out)) if isinstance(out, WorkerFailure) else out
        return [self._counted[mask_of(item)] for item in items]

    def presence(self, dataset: DataSet, items: Sequence[Item]) -> NDArray[np.bool_]:
        """Return which classes each item's mask contains (N,C); all False if the mask cannot be decoded."""
        presence = np.zeros((len(items), len(dataset.classes)), np.bool_)
        for row, mask in zip(presence, self.statistics(dataset, items), strict=True):
            row[: len(mask.counts)] = np.array(mask.counts, np.int64) > 0
        return presence

    def _each(self, function: Callable[[T], R], tasks: Sequence[T], files: Iterable[Path]) -> list[R | WorkerFailure]:
        """Return the results of `function`, run in worker processes with a timeout that depends on the largest file."""
        largest = max((path.stat().st_size for path in files if path.is_file()), default=0)
        timeout = TIMEOUT + largest / MIN_BYTES_PER_SECOND
        return map_isolated(function, tasks, workers=self.workers, timeout=timeout, progress=self.progress)


def _inspect_task(megapixels: int | None, windows: bool, task: Task) -> FileInfo:
    with pixel_limit(megapixels):
        return inspect_file(*task, windows=windows)


def _mask_task(classes: int, ignore_index: int, megapixels: int | None, item: Item) -> MaskStatistics:
    with pixel_limit(megapixels):
        return mask_statistics(item, classes, ignore_index)


def _reason(path: Path, result: WorkerFailure) -> str:
    return f"{path}: the process reading it {result.reason}"
