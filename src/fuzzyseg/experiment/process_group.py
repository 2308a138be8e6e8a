"""Processes started by torchrun: the group is opened once and closed at the end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import distributed as dist

from fuzzyseg.config import ConfigError


def choose_device(name: str) -> torch.device:
    """`auto`: this process's GPU, else MPS, else the CPU. Raises ConfigError for a device that is not there."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"--device: found {name!r}; expected auto, cpu, cuda, cuda:N or mps") from None
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise ConfigError(f"--device: found {name!r}, but {count} GPUs can be used here; try --device cpu")
        if device.index is None:
            return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError(f"--device: found {name!r}, but MPS cannot be used here; try --device cpu")
    return device


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Opens the group if torchrun started this process (nccl on GPUs, gloo elsewhere) and closes it afterwards."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or dist.is_initialized():
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()
