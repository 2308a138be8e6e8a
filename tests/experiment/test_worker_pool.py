"""Work in processes of their own: results in order, and a task that kills, stops or breaks its process is named."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time

import pytest

from fuzzyseg.experiment.worker_pool import WorkerFailure, default_workers, map_isolated


def square(task):
    if task == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if task == "leave":
        os._exit(7)
    if task == "hang":
        time.sleep(600)
    if task == "break":
        raise KeyError("a fault of ours")
    time.sleep(0.002 * (task % 5))  # results come out of order
    return task * task, os.getpid()


@pytest.mark.parametrize("workers", [1, 3, 50])
def test_results_come_in_the_order_of_the_tasks(workers):
    shown = []
    results = map_isolated(
        square, list(range(40)), workers=workers, progress=lambda done, total: shown.append((done, total))
    )
    assert [value for value, _ in results] == [n * n for n in range(40)]
    processes = {process for _, process in results}
    assert os.getpid() not in processes
    assert len(processes) <= workers
    assert shown == [(n, 40) for n in range(1, 41)]
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("workers", [1, 4])
def test_a_task_that_ends_its_process_is_lost_alone(workers):
    tasks = [1, "die", 2, 3, "leave", "die", 4, "break", 5]
    results = map_isolated(square, tasks, workers=workers)
    for task, result in zip(tasks, results, strict=True):
        if isinstance(task, int):
            assert result[0] == task * task
        else:
            words = {"die": "died of SIGKILL", "leave": "died with exit code 7", "break": "failed with KeyError"}
            assert isinstance(result, WorkerFailure)
            assert words[task] in result.reason
    assert multiprocessing.active_children() == []


def test_a_task_that_never_ends_is_given_up():
    results = map_isolated(square, ["hang", 3, 4], workers=1, timeout=1.5)
    assert "no answer within 1.5 seconds" in results[0].reason
    assert [value for value, _ in results[1:]] == [9, 16]
    assert multiprocessing.active_children() == []


def test_nothing_to_do_and_interruptions_leave_no_process():
    assert map_isolated(square, []) == []

    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        map_isolated(square, list(range(20)), workers=3, progress=interrupt)
    assert multiprocessing.active_children() == []
    assert 1 <= default_workers(2) <= 2
