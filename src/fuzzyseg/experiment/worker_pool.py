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

TIMEOUT = 300.0
"""Default timeout of a task in seconds, after which its process is killed."""


@dataclass(frozen=True)
class WorkerFailure:
    """Placeholder for the result of a task that crashed, timed out or raised. reason: for example "was not run"."""

    reason: str


def default_workers(limit: int = 16) -> int:
    """Return the number of processors available to this process, at most `limit`."""
    return max(1, min(limit, cores() or 1))


def map_isolated(
    function: Callable[[T], R],
    tasks: Sequence[T],
    *,
    workers: int | None = None,
    timeout: float = TIMEOUT,
    progress: Callable[[int, int], None] | None = None,
) -> list[R | WorkerFailure]:
    """Call `function(task)` for each task in worker processes. A task that fails gets a `WorkerFailure` as its result.

    `function`, tasks and results are pickled. Workers ignore Ctrl-C; an exception in the parent stops them.

    Args:
        function: called with one task.
        tasks: arguments of `function`.
        workers: number of processes. Default: `default_workers()`.
        timeout: timeout per task, in seconds.
        progress: called with (done, total).

    Returns:
        The results in the order of the tasks.
    """
    results: list[R | WorkerFailure] = [WorkerFailure("was not run")] * len(tasks)
    if not tasks:
        return results
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
    with ProcessPool(
        min(workers or default_workers(), len(tasks)),
        context=context,
        initializer=signal.signal,
        initargs=[signal.SIGINT, signal.SIG_IGN],  # a terminal sends Ctrl-C to all processes; the parent handles it
    ) as pool:
        futures = (pool.schedule(function, [task], timeout=timeout) for task in tasks)
        numbers: dict[Future[R], int] = {future: number for number, future in enumerate(futures)}
        try:
            for done, future in enumerate(as_completed(numbers), start=1):
                try:
                    results[numbers[future]] = future.result()
                except TimeoutError:
                    results[numbers[future]] = WorkerFailure(f"gave no answer within {timeout:g} seconds")
                except ProcessExpired as error:
                    results[numbers[future]] = WorkerFailure(_exit_reason(error.exitcode))
                except Exception as error:
                    results[numbers[future]] = WorkerFailure(f"failed with {type(error).__name__}: {error}")
                if progress is not None:
                    progress(done, len(tasks))
        except BaseException:
            pool.stop()  # type: ignore[no-untyped-call]
            raise
    return results


def _exit_reason(code: int) -> str:
    if code >= 0:
        return f"died with exit code {code}"
    name = signal.Signals(-code).name
    return f"died of {name}" + (", perhaps out of memory" if name == "SIGKILL" else "")
