"""Batch loader: endless, resumable streams of batches.

A sample depends only on (seed, stream, number); see `sampler`. It does not depend on the number of workers, on how a
step is divided among processes and micro-batches, or on the step from which a run is resumed.

On Linux, workers are forked when `batches` starts. This is fast, needs no `if __name__ == "__main__"` in the user's
script, and shares the file lists. A lock held by another thread at that moment stays locked in the worker, so
workers run a single thread and use only the dataset. Other platforms use their default start method.
"""

import signal
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from fuzzyseg.data.io.scores import read_scores
from fuzzyseg.data.loading.sampler import PUBLISH_DELAY, Draw, Sampler
from fuzzyseg.data.sample import DataError, Item
from fuzzyseg.data.transforms.geometry import Geometry, make_sample, stacked
from fuzzyseg.data.transforms.lazy import Large
from fuzzyseg.data.transforms.photometric import Colours, Pending
from fuzzyseg.data.views import Batch, Stream

_MAX_AHEAD = 32
"""Maximum number of prefetched micro-batches, to limit memory use."""


class ImageReader(Protocol):
    """Interface implemented by `fuzzyseg.data.Reader` and `fuzzyseg.data.loading.reader.LazyReader`."""

    def read(self, item: Item, with_mask: bool) -> tuple[Tensor | Large, Tensor | Large | None]:
        """Read the image (C,H,W), uint8 or float32 in units, and if with_mask the mask (H,W). Raises DataError."""


_Task = tuple[str, tuple[Draw, ...]]
"""A stream name and the draws of one micro-batch, which a single worker loads."""


@dataclass
class _Samples(Dataset[dict[str, Tensor] | DataError]):
    """Map-style dataset that maps tasks to stacked tensors.

    reading: stream number and item index of the image that each worker is reading (-1: none), in shared memory because
    a killed worker cannot report them.
    """

    streams: dict[str, Stream]
    sources: dict[str, list[Item]]
    reader: ImageReader
    options: dict[str, Any]
    reading: Tensor
    focused: bool

    def item(self, stream: str, index: int) -> Item:
        """Return the item at an index of the stream's source."""
        return self.sources[self.streams[stream].source][index]

    def __getitem__(self, task: _Task) -> dict[str, Tensor] | DataError:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as in a worker: sums over several threads may round differently
        try:
            samples = [self._sample(task[0], draw) for draw in task[1]]
            batch = {key: stacked([sample[key] for sample in samples]) for key in samples[0]}
            if get_worker_info() is not None:
                share(batch)
        except DataError as error:
            # returned, not raised: the DataLoader would raise it with the worker's traceback
            return DataError(str(error))
        finally:
            torch.set_num_threads(threads)
        return batch

    def _sample(self, stream: str, draw: Draw) -> dict[str, Tensor]:
        spec, worker = self.streams[stream], get_worker_info()
        if worker is not None:
            self.reading[worker.id] = torch.tensor([list(self.streams).index(stream), draw.index])
        item = self.item(stream, draw.index)
        image, mask = self.reader.read(item, with_mask=spec.source == "labelled")
        focus = draw.drawn_for if self.focused and mask is not None else -1
        scores = read_scores(item) if spec.scores else None
        sample = make_sample(spec.view, image, mask, scores, seed=draw.seed, focus=focus, **self.options)
        if worker is not None:
            self.reading[worker.id] = -1
        return sample

    def being_read(self) -> list[Item]:
        """Return the items that workers are reading, or were reading when they died."""
        names = list(self.streams)
        return [self.item(names[stream], index) for stream, index in self.reading.tolist() if index >= 0]


class Loader:
    """Loads the batches of all streams for one of `world` training processes.

    streams: by name. sources: items of "labelled", "unlabelled" and "all"; masks are read only for "labelled". reader:
    see `ImageReader`. geometry, jitter, mean, std: see `make_sample`. batch: images per step and stream, over all
    processes and micro-batches. accumulate: micro-batches per step. workers: number of worker processes that read
    images; 0: read in this process. rank, world: index and number of training processes. pin: whether to use pinned
    memory. balance: see `Sampler`. focused: whether to place crops of images with masks over a pixel of the class for
    which the image was drawn. colours_later: whether to apply photometric transforms on the device, in `Batch.to`.
    Raises ValueError if the batch cannot be split evenly, and DataError if a stream has too few images. Checkpoints
    must include the state of the attribute `sampler`.
    """

    def __init__(
        self,
        streams: Mapping[str, Stream],
        sources: Mapping[str, Sequence[Item]],
        reader: ImageReader,
        *,
        geometry: Geometry,
        jitter: float,
        mean: Sequence[float],
        std: Sequence[float],
        batch: int,
        accumulate: int,
        seed: int,
        workers: int,
        rank: int = 0,
        world: int = 1,
        pin: bool = False,
        balance: Mapping[str, Tensor] | None = None,
        focused: bool = False,
        colours_later: bool = False,
    ) -> None:
        if batch < 1 or accumulate < 1 or batch % (world * accumulate):
            raise ValueError(
                f"batch: found {batch} images per step; expected a multiple of {world} x {accumulate} = "
                f"{world * accumulate}: change train.batch, train.accumulate or the number of processes"
            )
        if workers < 0 or not 0 <= rank < world:
            raise ValueError(f"found workers={workers}, rank={rank}, world={world}; expected rank < world, none < 0")
        self._tasks_per_step = accumulate * len(streams)
        self._workers = min(workers, self._most_ahead)
        options = {"geometry": geometry, "jitter": jitter, "mean": mean, "std": std, "colours_later": colours_later}
        copied = {name: list(items) for name, items in sources.items()}
        reading = torch.full((self._workers, 2), -1).share_memory_()  # type: ignore[no-untyped-call]
        self._colours = Colours(tuple(mean), tuple(std))
        self._statistics = (torch.tensor(list(mean)), torch.tensor(list(std)))
        self.sampler = Sampler(streams, {name: len(items) for name, items in sources.items()}, batch, seed, balance)
        self._samples = _Samples(dict(streams), copied, reader, options, reading, focused)
        self._streams = list(streams)
        self._batch, self._accumulate, self._rank, self._world, self._pin = batch, accumulate, rank, world, pin

    @property
    def _most_ahead(self) -> int:
        """Maximum number of prefetched tasks: those of PUBLISH_DELAY - 1 steps, whose weights are already known."""
        return min(_MAX_AHEAD, (PUBLISH_DELAY - 1) * self._tasks_per_step)

    def batches(self, start: int, stop: int) -> Iterator[list[dict[str, Batch]]]:
        """Yield this process's micro-batches (stream -> Batch, on the CPU) for the steps start to stop - 1.

        Weights that apply to step s must be published before step s - 15 is requested. Workers stop when the iterator
        is closed or exhausted. Raises a DataError that names the file, even if a worker died while reading it.
        """
        pending: deque[_Task] = deque()
        reached = [start]

        def tasks() -> Iterator[_Task]:
            for step in range(start, stop):
                assert step - reached[0] < PUBLISH_DELAY, "drawn before the weights that steer it were published"
                for task in self._tasks(step):
                    pending.append(task)
                    yield task

        results = iter(self._data_loader(tasks()))
        try:
            for step in range(start, stop):
                reached[0] = step
                micro_batches: list[dict[str, Batch]] = [{} for _ in range(self._accumulate)]
                for place in range(self._tasks_per_step):
                    content = self._receive(results)
                    if isinstance(content, DataError):
                        raise content
                    stream, draws = pending.popleft()
                    micro_batches[place // len(self._streams)][stream] = self._assemble(stream, draws, content)
                yield micro_batches
        finally:
            del results  # the last reference: the workers stop here, not at a later garbage collection

    def _tasks(self, step: int) -> Iterator[_Task]:
        """Yield this process's tasks for a step. A micro-batch has the same draw numbers in every stream."""
        share = self._batch // (self._world * self._accumulate)
        for micro in range(self._accumulate):
            first = step * self._batch + (self._rank * self._accumulate + micro) * share
            for stream in self._streams:
                yield stream, tuple(self.sampler.at(stream, number) for number in range(first, first + share))

    def _data_loader(self, tasks: Iterator[_Task]) -> DataLoader[Any]:
        several: dict[str, Any] = {}
        if self._workers:
            several = {
                "prefetch_factor": max(1, min(4, self._most_ahead // self._workers)),
                "multiprocessing_context": "fork" if sys.platform == "linux" else None,
                "worker_init_fn": _start_worker,
            }
        return DataLoader(
            self._samples,
            sampler=tasks,  # type: ignore[arg-type]
            batch_size=None,
            num_workers=self._workers,
            pin_memory=self._pin,
            generator=torch.Generator(),  # otherwise, it draws its base seed from the global generator
            **several,
        )

    def _receive(self, results: Iterator[Any]) -> dict[str, Tensor] | DataError:
        """Return the next micro-batch, or an error. If raised here, its traceback would keep the workers alive."""
        try:
            content: dict[str, Tensor] | DataError = next(results)
        except RuntimeError as error:
            if not str(error).startswith("DataLoader worker (pid"):  # torch's report that a process ended
                raise
            files = ", ".join(str(item.image) for item in self._samples.being_read()) or "no image"
            return DataError(
                f"a data worker died ({str(error).splitlines()[0]}) while reading {files}; check whether the file "
                "opens in an image viewer and whether the memory is full; train.workers=0 shows where the error occurs"
            )
        return content

    def _assemble(self, stream: str, draws: tuple[Draw, ...], content: dict[str, Tensor]) -> Batch:
        return Batch(
            image=content["image"],
            valid=content["valid"],
            mask=content.get("mask"),
            index=torch.tensor([draw.index for draw in draws]),
            name=[self._samples.item(stream, draw.index).name for draw in draws],
            seed=torch.tensor([draw.seed for draw in draws]),
            drawn_for=torch.tensor([draw.drawn_for for draw in draws]),
            strong=content["strong"].unbind(1) if "strong" in content else (),
            pair=(content["pair_image"], content["pair_valid"]) if "pair_image" in content else None,
            boxes=content.get("boxes"),
            flips=content.get("flips"),
            scores=content.get("scores"),
            statistics=self._statistics,
            pending=Pending.of(content, self._colours),
        )


def _start_worker(worker: int) -> None:
    """Set up a worker process.

    On Ctrl-C, a terminal sends SIGINT to every process in the group; torchrun sends SIGTERM. The training process
    handles these signals and stops the workers, which ignore them. Tensors are passed by file name, because passing
    file descriptors would require one per prefetched tensor.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if "file_system" in torch.multiprocessing.get_all_sharing_strategies():  # type: ignore[no-untyped-call]
        torch.multiprocessing.set_sharing_strategy("file_system")  # type: ignore[no-untyped-call]


def share(tensors: Mapping[str, Tensor]) -> None:
    """Move tensors into shared memory. Raises DataError if there is not enough of it.

    Otherwise, the queue would do this in a thread that does not report errors, and the training process would hang.
    """
    try:
        for tensor in tensors.values():
            tensor.share_memory_()  # type: ignore[no-untyped-call]
    except (RuntimeError, OSError) as error:
        raise DataError(
            f"a data worker cannot share its batch ({error}): raise the size of shared memory (/dev/shm; --shm-size of "
            "a container) or the number of open files (ulimit -n), lower train.batch or train.workers, or set "
            "train.workers=0"
        ) from None
