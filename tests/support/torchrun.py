"""Trainings of a tiny network under torchrun, as one or several processes, and what they leave behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch

TESTS = Path(__file__).parents[1]


def command(config: dict[str, Any], norm: str = "group", *launcher: str, die: str = "") -> list[str]:
    """Command of a training. launcher: options of torchrun; none: one process without it.

    die: `RANK:STEP`, the process that kills itself after this optimiser step of its first attempt, if it has several.
    """
    start = [sys.executable, *(["-m", "torch.distributed.run", *launcher] if launcher else [])]
    return [*start, str(Path(__file__)), json.dumps(config), norm, die]


def on_this_machine(processes: int, *more: str) -> list[str]:
    """Options of torchrun for so many processes; one: none."""
    if processes == 1:
        return []
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [f"--nproc-per-node={processes}", f"--master-port={port}", *more]


def left_by(config: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The content of last.pt and the logged lines."""
    out = Path(config["out"])
    rows = [json.loads(row) for row in (out / "metrics.jsonl").read_text().splitlines()]
    return torch.load(out / "last.pt", weights_only=True), rows


def launch(config: dict[str, Any], processes: int, norm: str = "group") -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Run a training in so many processes; return the content of last.pt and the logged lines."""
    done = subprocess.run(
        command(config, norm, *on_this_machine(processes)), capture_output=True, text=True, env=environment()
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return left_by(config)


def environment() -> dict[str, str]:
    """Variables for `command`, which imports tests/support."""
    return {**os.environ, "PYTHONPATH": f"{TESTS}{os.pathsep}{os.getenv('PYTHONPATH', '')}"}


def _main(config: str, norm: str, die: str) -> None:
    from torch.optim.optimizer import register_optimizer_step_post_hook

    import fuzzyseg
    from support.tiny_network import TinyNetwork

    torch.set_num_threads(1)
    steps = 0

    def count(*_: Any) -> None:
        nonlocal steps
        steps += 1
        if f"{os.getenv('RANK')}:{steps}" == die and os.getenv("TORCHELASTIC_RESTART_COUNT") == "0":
            os.kill(os.getpid(), signal.SIGKILL)

    register_optimizer_step_post_hook(count)
    fuzzyseg.train(json.loads(config), network=partial(TinyNetwork, classes=3, norm=norm), quiet=True)


if __name__ == "__main__":
    _main(*sys.argv[1:])
