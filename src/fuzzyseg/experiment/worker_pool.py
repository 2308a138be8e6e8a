"""A process pool that survives tasks that crash or hang, such as decoding a damaged file."""

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
"""Default timeout of a task in seconds, after which its process is killed."""


@dataclass(frozen=True)
class Lost:
    """Placeholder for the result of a task that crashed, timed out or raised. reason: the end of a sentence."""

    reason: str


def usual_workers(most: int = 16) -> int:
    """Return the number of processors available to this process, at most `most`."""
    return max(1, min(most, cores() or 1))


def each_apart(
    look: Callable[[T], R],
    tasks: Sequence[T],
    *,
    workers: int | None = None,
    patience: float = PATIENCE,
    progress: Callable[[int, int], None] | None = None,
) -> list[R | Lost]:
    """Call `look(task)` for each task in worker processes. A task that fails gets a `Lost` as its result.

    `look`, tasks and results are pickled. Workers ignore Ctrl-C; an exception in the parent stops them.

    Args:
        look: function of one task.
        tasks: arguments of `look`.
        workers: number of processes. Default: `usual_workers()`.
        patience: timeout of a task, in seconds.
        progress: called with (done, total).

    Returns:
        The results in the order of the tasks.
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
