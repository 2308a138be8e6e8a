"""Settings of all tests: one thread each, as the suite runs in parallel; the sample of slow tests; the shared data."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from support.slow_sample import SAMPLE, left_out

torch.set_num_threads(1)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A suite in a shell's background; what it starts would ignore Ctrl-C too, and tests send it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
if not torch.cuda.is_available():
    # Kernels in Triton run in its interpreter, which is chosen when it is first imported.
    os.environ.setdefault("TRITON_INTERPRET", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--slow",
        choices=("all", "sample", "none"),
        default="all",
        help=f"slow tests to run; sample: one in {SAMPLE}, chosen by their names, so always the same",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    chosen = config.getoption("slow")
    dropped = [item for item in items if item.get_closest_marker("slow") and left_out(item.nodeid, chosen)]
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = [item for item in items if item not in dropped]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder `shared` beside the repository; skips the test where it is missing."""
    folder = Path(__file__).parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"needs the folder of shared data {folder.name!r} beside the repository")
    return folder
