"""Work on files in processes of their own: a file that a decoder dies of, or never comes back from, ends one of them
and is named; the others go on."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

PATIENCE = 300.0
"""Seconds after which a process that works on one task is ended."""

_LOOK = 5.0  # seconds between two looks of a waiting process whether its parent is still there


@dataclass(frozen=True)
class Lost:
    """A task that gave no result, and why. dead: so is the process that worked on it."""

    reason: str
    dead: bool = False


def usual_workers(most: int = 16) -> int:
    """As many as there are processors to use, up to `most`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(most, cores))


def each_apart(
    look: Callable[[T], R],
    tasks: Sequence[T],
    *,
    workers: int | None = None,
    patience: float = PATIENCE,
    progress: Callable[[int, int], None] | None = None,
) -> list[R | Lost]:
    """`look(task)` for each task, in the tasks' order, by so many processes at once; a Lost where one gave nothing.

    look, tasks and results can be pickled. progress: called with (done, total). Leaving by an exception, such as
    Ctrl-C, ends the processes; they themselves do not hear Ctrl-C.
    """
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
    results: list[R | Lost] = [Lost("not reached")] * len(tasks)
    waiting = iter(range(len(tasks)))
    busy: list[_Worker[T, R]] = []
    done = 0
    try:
        for number in waiting:
            busy.append(_Worker(context, look))
            busy[-1].give(number, tasks[number])
            if len(busy) == min(workers or usual_workers(), len(tasks)):
                break
        while busy:
            ready = wait([worker.mine for worker in busy], timeout=1.0)
            for worker in list(busy):
                if worker.mine in ready:
                    result = worker.take()
                elif time.monotonic() - worker.since > patience:
                    result = Lost(f"gave no answer within {patience:g} seconds", dead=True)
                else:
                    continue
                results[worker.number] = result
                done += 1
                if progress is not None:
                    progress(done, len(tasks))
                number = next(waiting, -1)
                if number < 0 or (isinstance(result, Lost) and result.dead):
                    worker.end()
                    busy.remove(worker)
                    if number < 0:
                        continue
                    worker = _Worker(context, look)
                    busy.append(worker)
                worker.give(number, tasks[number])
    finally:
        for worker in busy:
            worker.end()
    return results


class _Worker(Generic[T, R]):
    """A process that works on one task after the other. number, since: of the task it is at."""

    def __init__(self, context: Any, look: Callable[[T], R]) -> None:
        self.mine, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, look), daemon=True)
        self.process.start()
        theirs.close()  # so that its end is seen here
        self.number, self.since = -1, 0.0

    def give(self, number: int, task: T) -> None:
        self.number, self.since = number, time.monotonic()
        try:
            self.mine.send(task)
        except OSError:  # it has died already: `take` will tell
            pass

    def take(self) -> R | Lost:
        """The result, or how the process ended."""
        try:
            result: R | Lost = self.mine.recv()
        except (EOFError, OSError):
            self.process.join(10)
            code = self.process.exitcode
            if code is not None and code < 0:
                name = signal.Signals(-code).name
                also = ", perhaps because memory is short" if name == "SIGKILL" else ""
                return Lost(f"died of {name}{also}", dead=True)
            return Lost(f"died with exit code {code}", dead=True)
        return result

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.mine.close()


def _serve(theirs: Connection, look: Callable[[Any], Any]) -> None:
    """The process: Ctrl-C goes to all processes of a terminal and is answered by the first one alone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = os.getppid()
    while True:
        while not theirs.poll(_LOOK):
            if os.getppid() != parent:
                return
        try:
            task = theirs.recv()
        except (EOFError, OSError):
            return
        try:
            result = look(task)
        except Exception as error:  # a fault of ours or of a decoder's: the file is named, the others are looked at
            result = Lost(f"failed with {type(error).__name__}: {error}")
        theirs.send(result)
