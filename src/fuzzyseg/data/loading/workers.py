"""What a reading process does besides reading: it leaves notes for the trainer, and never lets it wait for nothing."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.queues import Queue
from typing import Any

import torch
from torch.utils.data import get_worker_info

from fuzzyseg.data.sample import DataError

_IDLE, _STUCK = -1, -2
_SPARE = 8  # descriptors that handing a batch over takes besides two for each tensor


class Notes:
    """What each process is at, in memory that all share: a stream's number and an index, or that it gave up."""

    def __init__(self, workers: int) -> None:
        self._rows = torch.full((workers, 2), _IDLE, dtype=torch.long).share_memory_()  # type: ignore[no-untyped-call]

    @contextmanager
    def reading(self, stream: int, index: int) -> Iterator[None]:
        """Within it this process, if it is one of those that read, is noted to be at a place of a stream."""
        worker = get_worker_info()
        if worker is not None:
            self._rows[worker.id] = torch.tensor([stream, index])
        yield
        if worker is not None:
            self._rows[worker.id] = _IDLE

    def places(self) -> list[tuple[int, int]]:
        """Stream and index of what the processes were at when they were last heard of."""
        return [(stream, index) for stream, index in self._rows.tolist() if index >= 0]

    def give_up(self, worker: int) -> None:
        """Notes that a process could not hand over what it read."""
        self._rows[worker] = _STUCK

    @property
    def stuck(self) -> bool:
        """Whether a process gave up."""
        return bool((self._rows == _STUCK).any())


def start_worker(worker: int) -> None:
    """Prepares a process that reads; its data set has `notes`.

    Ctrl-C goes to all processes of a terminal: the trainer answers it, readers go on until they are stopped. A batch
    that cannot be put into shared memory would be dropped by the thread that does it, and waited for without end: the
    process ends instead, which the trainer notices.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Queue._on_queue_feeder_error = staticmethod(_give_up)  # type: ignore[attr-defined]


def _give_up(error: Exception, _: Any) -> None:
    traceback.print_exception(error)
    worker = get_worker_info()
    if worker is not None:
        worker.dataset.notes.give_up(worker.id)  # type: ignore[attr-defined]
    os._exit(1)


def check_descriptors(tensors: int) -> None:
    """Raises DataError where a reading process may not open the files by which it hands over so many tensors.

    The server that hands them over would try again without end.
    """
    if get_worker_info() is None:
        return
    try:
        with ExitStack() as stack:
            for _ in range(2 * tensors + _SPARE):
                stack.callback(os.close, os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        raise DataError(
            f"a process that reads images cannot hand over what it read ({error.strerror}): raise the number of files "
            "that may be open (ulimit -n), or set train.workers=0"
        ) from None


def died(error: RuntimeError) -> bool:
    """Whether it is torch's word that a reading process ended; another error was raised in one."""
    return str(error).startswith("DataLoader worker (pid")


@contextmanager
def one_thread() -> Iterator[None]:
    """As in a reading process: sums in another order would make samples depend on the number of workers."""
    threads = torch.get_num_threads()
    if threads > 1:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if threads > 1:
            torch.set_num_threads(threads)
