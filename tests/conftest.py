"""Shared by all tests: one thread each (the suite runs in parallel) and the folder of real data, where there is one."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
torch.set_num_threads(1)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A suite in a shell's background; what it starts would ignore Ctrl-C too, and tests send it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
if not torch.cuda.is_available():
    # Kernels in Triton run in its interpreter, which is chosen when it is first imported.
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder `shared` beside the repository; skips the test where it is missing."""
    folder = Path(__file__).parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"needs the folder of shared data {folder.name!r} beside the repository")
    return folder
