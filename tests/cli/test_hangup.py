"""A terminal that closes during a training."""

import os
import signal
import sys
import time

import pytest
import yaml

from fuzzyseg.engine.checkpoint import load
from support.tiny_data import settings, write_folder

pty = pytest.importorskip("pty")


@pytest.mark.slow
def test_a_training_whose_terminal_closes_saves_and_exits_130(tmp_path):
    out = tmp_path / "out"
    config = settings(write_folder(tmp_path / "data"), out, train={"steps": 100_000, "evaluate": False})
    config["network"] |= {"encoder": "resnet18", "arch": "FPN"}
    config["train"] |= {"crop": [32, 32], "log_every": 1}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(config))
    child, terminal = pty.fork()
    if child == 0:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # it is ignored where the tests run under nohup
        os.execv(sys.executable, [sys.executable, "-m", "fuzzyseg", "train", str(tmp_path / "recipe.yaml")])
    shown, metrics = b"", out / "metrics.jsonl"
    while not metrics.is_file() or len(metrics.read_text().splitlines()) < 3:
        shown += os.read(terminal, 4096)  # raises OSError if the training ends before
    os.close(terminal)
    end = time.monotonic() + 300
    status = (0, 0)
    while not status[0] and time.monotonic() < end:
        status = os.waitpid(child, os.WNOHANG)
        time.sleep(0.2)
    if not status[0]:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert status[0] and os.waitstatus_to_exitcode(status[1]) == 130
    assert load(out / "last.pt")["step"] >= 3
