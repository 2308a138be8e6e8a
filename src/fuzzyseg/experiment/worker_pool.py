"""A process pool for files: one that crashes or hangs a decoder is reported and the others are processed."""

import multiprocessing
import signal
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future, TimeoutError, as_completed
from dataclasses import dataclass
from typing import TypeVar

from pebble import ProcessExpired, ProcessPool

from fuzzyseg.run.environment import cores

T = TypeVar("T")
R = TypeVar("R")

PATIENCE = 300.0
"""Seconds after which a task is given up and its process is killed."""


@dataclass(frozen=True)
class Lost:
    """A task without a result, and the reason."""

    reason: str


def usual_workers(most: int = 16) -> int:
    """The number of processors available to this process, at most `most`."""
    return max(1, min(most, cores() or 1))


def each_apart(
    look: Callable[[T], R],
    tasks: Sequence[T],
    *,
    workers: int | None = None,
    patience: float = PATIENCE,
    progress: Callable[[int, int], None] | None = None,
) -> list[R | Lost]:
    """`look(task)` for each task in worker processes, in the order of the tasks; a `Lost` if there is no result.

    `look`, tasks and results are pickled. An exception such as Ctrl-C, which the workers ignore, ends the processes.

    Args:
        look: the work.
        tasks: its arguments.
        workers: number of processes; None: `usual_workers`.
        patience: seconds per task.
        progress: called with (done, total).
    """
    results: list[R | Lost] = [Lost("was not run")] * len(tasks)
    if not tasks:
        return results
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
    with ProcessPool(
        min(workers or usual_workers(), len(tasks)),
        context=context,
        initializer=signal.signal,
        initargs=[signal.SIGINT, signal.SIG_IGN],  # a terminal sends Ctrl-C to all processes; the parent answers it
    ) as pool:
        futures = (pool.schedule(look, [task], timeout=patience) for task in tasks)
        numbers: dict[Future[R], int] = {future: number for number, future in enumerate(futures)}
        try:
            for done, future in enumerate(as_completed(numbers), start=1):
                try:
                    results[numbers[future]] = future.result()
                except TimeoutError:
                    results[numbers[future]] = Lost(f"gave no answer within {patience:g} seconds")
                except ProcessExpired as error:
                    results[numbers[future]] = Lost(_death(error.exitcode))
                except Exception as error:
                    results[numbers[future]] = Lost(f"failed with {type(error).__name__}: {error}")
                if progress is not None:
                    progress(done, len(tasks))
        except BaseException:
            pool.stop()  # type: ignore[no-untyped-call]
            raise
    return results


def _death(code: int) -> str:
    if code >= 0:
        return f"died with exit code {code}"
    name = signal.Signals(-code).name
    return f"died of {name}" + (", perhaps out of memory" if name == "SIGKILL" else "")
