"""Device of a process, process group under torchrun, and sharding of the weights."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING

import torch
from torch import distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from fuzzyseg.config import ConfigError, TrainConfig
from fuzzyseg.experiment.build import Setup
from fuzzyseg.methods import Method
from fuzzyseg.ops import distributed
from fuzzyseg.run.environment import process_number

if TYPE_CHECKING:
    from fuzzyseg.engine.sharding import Sharding


def choose_device(name: str) -> torch.device:
    """Return the device with this name. `auto`: this process's GPU, or MPS, or the CPU. Raises ConfigError."""
    mps = torch.backends.mps.is_available()
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda", "mps"):
            raise RuntimeError
    except RuntimeError:
        raise ConfigError(f"--device: found {name!r}; expected auto, cpu, cuda, cuda:N or mps") from None
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        number = process_number("LOCAL_RANK") if device.index is None else device.index
        if number >= count:
            raise ConfigError(f"--device: found {name!r}, GPU {number}, but {count} are available; try --device cpu")
        return torch.device("cuda", number)
    if device.type == "mps" and not mps:
        raise ConfigError(f"--device: found {name!r}, but MPS is not available; try --device cpu")
    return device


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Initialise the process group (nccl for tensors on GPUs, otherwise gloo) under torchrun; destroy it on exit.

    Raises ValueError for invalid environment variables.
    """
    world = process_number("WORLD_SIZE", 1)
    if world < 2 or dist.is_initialized():
        yield
        return
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing or process_number("RANK") >= world:
        cause = f"{', '.join(missing)} not set" if missing else f"RANK is {process_number('RANK')}"
        raise ConfigError(f"WORLD_SIZE is {world}, but {cause}: start the processes with torchrun, or unset WORLD_SIZE")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    store, rank, size = next(rendezvous("env://"))
    if process_number("LOCAL_WORLD_SIZE") == world:  # torchrun's store keeps the addresses of processes that died
        store = PrefixStore(f"attempt {process_number('TORCHELASTIC_RESTART_COUNT')}", store)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size)
    try:
        yield
    finally:
        dist.destroy_process_group()


@contextmanager
def on_first_process(context: AbstractContextManager[object], device: torch.device) -> Iterator[None]:
    """Enter a context on the first process only. If it raises a ValueError, all processes raise one."""
    error: ValueError | None = None
    with ExitStack() as stack:
        if distributed.rank() == 0:
            try:
                stack.enter_context(context)
            except ValueError as found:
                error = found
        if float(distributed.mean(torch.tensor(float(error is not None), device=device))):
            raise error or ValueError("the first process has failed; see its message")
        yield


def sharding_of(setup: Setup, train: TrainConfig, method: Method) -> "Sharding | None":
    """Shard the method, on its device, if so configured and there are several processes. Raises ConfigError."""
    if train.sharding == "none":
        return None
    from fuzzyseg.engine.sharding import Sharding, encoder_blocks

    reasons = [
        (method.unsharded != "", f"method {setup.name} {method.unsharded}"),
        (setup.calibrates or setup.gates, "calibration during training predicts outside the method's forward pass"),
        (train.compile, "train.compile is not supported with it"),
        (train.precision == "fp16", "the gradient scaler of train.precision=fp16 is not supported with it; use bf16"),
        (not encoder_blocks(method), "the encoder has no transformer blocks; choose a ViT (tu-vit_...)"),
    ]
    for applies, reason in reasons:
        if applies:
            raise ConfigError(f"train.sharding: found fsdp, but {reason}; otherwise set train.sharding=none")
    return Sharding(method, next(method.parameters()).device) if distributed.active() else None
