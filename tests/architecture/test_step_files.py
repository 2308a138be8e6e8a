"""The files of the package that a training step of CPS with FPL runs."""

import sys
import threading
from functools import partial
from pathlib import Path

from torch.optim.optimizer import register_optimizer_step_post_hook

import fuzzyseg
from support.tiny_data import settings, write_folder
from support.tiny_network import TinyNetwork

LIMIT = 25
ROOT = Path(fuzzyseg.__file__).parent


def files_of_a_step(folder: Path) -> list[str]:
    """Names below the package, recorded by a profiler from the end of one step to the end of the fourth after it.

    Without worker processes, without saving and without evaluation.
    """
    config = settings(write_folder(folder / "data"), folder / "run")
    config["train"] |= {"steps": 8, "evaluate": False, "save_every": 100, "log_every": 1}
    found: set[str] = set()
    steps = 0

    def record(frame, event, argument):
        if event == "call" and frame.f_code.co_filename.startswith(str(ROOT)):
            found.add(Path(frame.f_code.co_filename).relative_to(ROOT).as_posix())

    def count(*_):
        nonlocal steps
        steps += 1
        profiler = record if 2 <= steps < 6 else None
        sys.setprofile(profiler)
        threading.setprofile(profiler)

    hook = register_optimizer_step_post_hook(count)
    try:
        fuzzyseg.train(config, network=partial(TinyNetwork, classes=3), quiet=True)
    finally:
        hook.remove()
        sys.setprofile(None)
        threading.setprofile(None)
    assert steps == config["train"]["steps"]
    return sorted(found)


def test_a_step_runs_few_files(tmp_path):
    result = files_of_a_step(tmp_path)
    assert {"methods/cps.py", "engine/trainer.py"} <= set(result)
    assert len(result) <= LIMIT, "\n".join(result)
