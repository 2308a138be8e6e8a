"""Endless, resumable streams of batches.

What a sample is depends on (seed, stream, number) alone (`draws`): not on the processes that read, on how a step is
split over ranks and micro-batches, nor on where the run was resumed.

Images are read by processes. On Linux they are forked when `batches` starts: a fork is quick, needs no main guard in
the user's script and shares the lists; it copies no threads, so a lock that another thread holds at that moment stays
locked in the copy. Readers therefore touch nothing of what was forked but the data set, on one thread. Elsewhere the
platform's own start method is used; all that is sent can be pickled.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fuzzyseg.data.loading.sampler import PUBLISH_DELAY, Draw, Draws, derangement, draw_seed, index_at, permutation
from fuzzyseg.data.loading.workers import Notes, check_descriptors, died, one_thread, start_worker
from fuzzyseg.data.sample import DataError, Item
from fuzzyseg.data.transforms.geometry import Geometry, make_sample, stacked
from fuzzyseg.data.transforms.jitter import Pending
from fuzzyseg.data.transforms.lazy import Large
from fuzzyseg.data.transforms.photometric import Colours
from fuzzyseg.data.views import Batch, Stream

__all__ = ["PUBLISH_DELAY", "Draw", "Draws", "Loader", "derangement", "draw_seed", "index_at", "permutation"]

_MOST_AHEAD = 32  # tasks read ahead, of up to nine tensors, each an open file: 288 of the 1,024 that may be open


class ImageReader(Protocol):
    """What reads an item: `fuzzyseg.data.Reader`, `fuzzyseg.data.loading.reader.ByWindows`, or what does the same."""

    def read(self, item: Item, with_mask: bool) -> tuple[Tensor | Large, Tensor | Large | None]:
        """Image (C,H,W), uint8 or float32 in units, and mask uint8 (H,W), 255 for void, if asked for. DataError."""


@dataclass(frozen=True)
class _Task:
    """One micro-batch of one stream, which one process makes."""

    step: int
    stream: str
    draws: tuple[Draw, ...]


@dataclass(frozen=True)
class _Failure:
    """An error on its way from a reading process to the user."""

    message: str


class _Samples(Dataset[dict[str, Tensor] | _Failure]):
    """Tasks -> stacked tensors. notes: what each process is at."""

    def __init__(
        self,
        streams: Mapping[str, Stream],
        sources: Mapping[str, Sequence[Item]],
        reader: ImageReader,
        options: Mapping[str, Any],
        workers: int,
        focused: bool = False,
    ) -> None:
        self.focused = focused
        self.streams = dict(streams)
        self.sources = {name: list(items) for name, items in sources.items()}
        self.reader = reader
        self.options = dict(options)
        self.notes = Notes(workers)

    def item(self, stream: str, index: int) -> Item:
        """The item at a place of the stream's source."""
        return self.sources[self.streams[stream].source][index]

    def __getitem__(self, task: _Task) -> dict[str, Tensor] | _Failure:
        try:
            with one_thread():
                samples = [self._sample(task.stream, draw) for draw in task.draws]
            check_descriptors(len(samples[0]))
        except DataError as error:
            return _Failure(str(error))
        return {key: stacked([sample[key] for sample in samples]) for key in samples[0]}

    def _sample(self, stream: str, draw: Draw) -> dict[str, Tensor]:
        spec = self.streams[stream]
        with self.notes.reading(list(self.streams).index(stream), draw.index):
            image, mask = self.reader.read(self.item(stream, draw.index), with_mask=spec.source == "labelled")
            focus = draw.drawn_for if self.focused and mask is not None else -1
            return make_sample(spec.view, image, mask, seed=draw.seed, focus=focus, **self.options)

    def suspects(self) -> list[Item]:
        """What the processes were at when they were last heard of."""
        names = list(self.streams)
        return [self.item(names[stream], index) for stream, index in self.notes.places()]


class Loader:
    """The batches of all streams, as one process of `world` gets them.

    streams: by name. sources: the items of "labelled", "unlabelled" and "all"; masks are read of "labelled" only.
    reader: see `ImageReader`. geometry, jitter, mean, std: see `make_sample`. batch: images per step and stream, all
    processes and micro-batches together. accumulate: micro-batches per step. workers: processes that read; 0 reads in
    this one. rank, world: this process and their number. pin: put batches into page-locked memory. balance: see
    `Draws`. focused: crops with masks lie over a pixel of the class drawn for. colours_later: `Batch.to` recolours,
    on the device. Raises ValueError if the batch cannot be split evenly, DataError if a stream has too few images.
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
                f"batch: found {batch} images per step for {world} processes with {accumulate} micro-batches each; "
                f"expected a multiple of {world} x {accumulate} = {world * accumulate}: change train.batch or "
                "train.accumulate, or the number of processes"
            )
        if workers < 0 or not 0 <= rank < world:
            raise ValueError(
                f"found workers={workers}, rank={rank}, world={world}; expected workers >= 0, rank < world"
            )
        self._tasks_per_step = accumulate * len(streams)
        self._workers = min(workers, self._most_ahead)
        options = {"geometry": geometry, "jitter": jitter, "mean": mean, "std": std, "colours_later": colours_later}
        self._colours = Colours(tuple(mean), tuple(std))
        self._statistics = (torch.tensor(list(mean)), torch.tensor(list(std)))
        self._draws = Draws(streams, {name: len(items) for name, items in sources.items()}, batch, seed, balance)
        self._samples = _Samples(streams, sources, reader, options, self._workers, focused)
        self._streams = list(streams)
        self._batch, self._accumulate, self._rank, self._world, self._pin = batch, accumulate, rank, world, pin

    @property
    def _most_ahead(self) -> int:
        """How many tasks may be on their way: never more than the weights' delay allows, one step less than it."""
        return min(_MOST_AHEAD, (PUBLISH_DELAY - 1) * self._tasks_per_step)

    def batches(self, start: int, stop: int) -> Iterator[list[dict[str, Batch]]]:
        """For each step from start to stop - 1 this process's micro-batches: stream -> Batch, on the CPU.

        Weights that steer step s must have been published before step s - 15 is asked for. Closing the iterator, or
        reaching its end, stops the reading processes. Raises DataError, which names the file, also where a reading
        process came upon it or died of it.
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
                    if isinstance(content, _Failure):
                        raise DataError(content.message)
                    task = pending.popleft()
                    micro_batches[place // len(self._streams)][task.stream] = self._assemble(task, content)
                yield micro_batches
        finally:
            del results  # the last reference: its processes end here, not at some later collection

    def publish(self, stream: str, step: int, weights: Tensor) -> None:
        """Weights (C,N) that steer what the stream draws from step + 16 on: see `Draws.publish`."""
        self._draws.publish(stream, step, weights)

    def state_dict(self) -> dict[str, dict[int, Tensor]]:
        """All that a resumed run needs besides the step: the published weights that still matter."""
        return self._draws.state_dict()

    def load_state_dict(self, state: Mapping[str, Mapping[int, Tensor]]) -> None:
        """Takes what `state_dict` gave. Raises ValueError on a stream that is not drawn here."""
        self._draws.load_state_dict(state)

    def _tasks(self, step: int) -> Iterator[_Task]:
        """This process's share of a step: for each micro-batch the same numbers of each stream, without gaps."""
        share = self._batch // (self._world * self._accumulate)
        for micro in range(self._accumulate):
            first = step * self._batch + (self._rank * self._accumulate + micro) * share
            for stream in self._streams:
                draws = tuple(self._draws.at(stream, number) for number in range(first, first + share))
                yield _Task(step, stream, draws)

    def _data_loader(self, tasks: Iterator[_Task]) -> DataLoader[Any]:
        several: dict[str, Any] = {}
        if self._workers:
            several = {
                "prefetch_factor": max(1, min(4, self._most_ahead // self._workers)),
                "multiprocessing_context": "fork" if sys.platform == "linux" else None,
                "worker_init_fn": start_worker,
            }
        return DataLoader(
            self._samples,
            sampler=tasks,  # type: ignore[arg-type]
            batch_size=None,
            collate_fn=_as_it_is,
            num_workers=self._workers,
            pin_memory=self._pin,
            generator=torch.Generator(),  # else it draws its base seed from the global generator
            **several,
        )

    def _receive(self, results: Iterator[Any]) -> dict[str, Tensor] | _Failure:
        """What comes next. An error is returned: raised here, its traceback would keep the processes alive."""
        try:
            content: dict[str, Tensor] | _Failure = next(results)
        except RuntimeError as error:
            if not died(error):
                raise
            return _Failure(self._obituary(str(error).splitlines()[0]))
        return content

    def _obituary(self, reason: str) -> str:
        if self._samples.notes.stuck:
            return (
                f"a process that reads images could not hand over what it read ({reason}; its own words are above): "
                "memory that processes share is wanting (/dev/shm; of a container --shm-size): raise it, lower "
                "train.batch or train.workers, or set train.workers=0"
            )
        files = ", ".join(str(item.image) for item in self._samples.suspects()) or "no image"
        return (
            f"a process that reads images died ({reason}) while reading {files}; look whether the file opens in a "
            "picture viewer and whether memory is short; with train.workers=0 the error shows where it happens"
        )

    def _assemble(self, task: _Task, content: dict[str, Tensor]) -> Batch:
        pair = (content["pair_image"], content["pair_valid"]) if "pair_image" in content else None
        return Batch(
            image=content["image"],
            valid=content["valid"],
            mask=content.get("mask"),
            index=torch.tensor([draw.index for draw in task.draws]),
            name=[self._samples.item(task.stream, draw.index).name for draw in task.draws],
            seed=torch.tensor([draw.seed for draw in task.draws]),
            drawn_for=torch.tensor([draw.drawn_for for draw in task.draws]),
            strong=content["strong"].unbind(1) if "strong" in content else (),
            pair=pair,
            boxes=content.get("boxes"),
            flips=content.get("flips"),
            statistics=self._statistics,
            pending=Pending.of(content, self._colours),
        )


def _as_it_is(content: Any) -> Any:
    return content
