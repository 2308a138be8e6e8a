"""Worker processes of the loader: set-up, shared memory, death."""

from __future__ import annotations

import signal
from collections.abc import Mapping

import torch
from torch import Tensor

from fuzzyseg.data.sample import DataError


def start_worker(worker: int) -> None:
    """Set up a worker process.

    Ctrl-C reaches all processes of a terminal: the training process handles it, workers go on until they are stopped.
    Tensors are passed by file name, since passing descriptors takes one for each tensor that is read ahead.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if "file_system" in torch.multiprocessing.get_all_sharing_strategies():  # type: ignore[no-untyped-call]
        torch.multiprocessing.set_sharing_strategy("file_system")  # type: ignore[no-untyped-call]


def share(tensors: Mapping[str, Tensor]) -> None:
    """Move tensors into shared memory. Raises DataError if there is too little.

    The queue would do it later, in a thread whose errors nobody sees: the training process would wait for ever.
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


def died(error: RuntimeError) -> bool:
    """Whether the error is the DataLoader's report that a worker process ended."""
    return str(error).startswith("DataLoader worker (pid")
