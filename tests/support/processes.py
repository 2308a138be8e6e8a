"""Helper that runs a function in several processes with a gloo group."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed, multiprocessing

TESTS = Path(__file__).parents[1]


def run_in_processes(work: Callable[..., Any], folder: Path, *args: Any, count: int = 2) -> list[Any]:
    """Run `work(rank, *args)` in `count` new processes with a process group, and return the results by rank.

    work: module-level function in a file below tests/. args: must be picklable. The results must be tensors and plain
    containers that `torch.load(weights_only=True)` accepts. folder: empty folder for the results and the rendezvous. If
    a process fails, the others are terminated and an exception with its traceback is raised.
    """
    file = Path(inspect.getfile(work)).relative_to(TESTS).with_suffix("")
    multiprocessing.spawn(_run, (".".join(file.parts), work.__name__, args, folder, count), nprocs=count)
    return [torch.load(folder / f"result-{rank}.pt", weights_only=True) for rank in range(count)]


def _run(rank: int, module: str, name: str, args: tuple[Any, ...], folder: Path, count: int) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=count, timeout=timedelta(minutes=4)
    )
    # by name: pytest imports test files under names that a new process may not find
    work = getattr(importlib.import_module(module), name)
    torch.save(work(rank, *args), folder / f"result-{rank}.pt")
    distributed.destroy_process_group()
