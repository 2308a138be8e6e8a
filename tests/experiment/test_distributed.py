"""Two processes with gloo equal one process on the same global batch."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from support.tiny_data import settings, write_folder

SCRIPT = """
import json, sys
from functools import partial
sys.path.insert(0, sys.argv[2])
import torch
torch.set_num_threads(1)
import fuzzyseg
from support.tiny_network import TinyNetwork
config = json.loads(sys.argv[1])
fuzzyseg.train(config, network=partial(TinyNetwork, classes=3, norm=sys.argv[3]), quiet=True)
"""

LOSSES = {
    "calibrated": {"name": "fuzzy", "threshold": "calibrated", "rule": "continuous", "calibrated": {"every": 2}},
    "conformal": {"name": "fuzzy", "threshold": "conformal:0.8", "calibrated": {"every": 2, "hold_back": 0.4}},
}


def launch(config, processes, norm, tmp_path):
    """Runs the training in so many processes and gives back last.pt and the logged lines."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    tests = str(Path(__file__).parents[1])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", f"--nproc-per-node={processes}", f"--master-port={port}"]
    done = subprocess.run([*start, str(script), json.dumps(config), tests, norm], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    out = Path(config["out"])
    rows = [json.loads(row) for row in (out / "metrics.jsonl").read_text().splitlines()]
    return torch.load(out / "last.pt", weights_only=True), rows


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loss", "cutmix", "norm"),
    [
        ("fuzzy", True, "group"),
        ("hard", False, "group"),
        ("fuzzy", True, "frozen"),
        ("calibrated", True, "group"),
        ("conformal", True, "group"),
    ],
)
def test_two_processes_equal_one(tmp_path, loss, cutmix, norm):
    root = write_folder(tmp_path / "data")
    # Scales below 1 leave much padding, so the processes have unequal numbers of valid pixels.
    train = {"steps": 5, "log_every": 1, "evaluate": False, "crop": [24, 32], "freeze_batch_norm": norm == "frozen"}
    results = []
    for processes in (1, 2):
        config = settings(
            root, tmp_path / f"run{processes}", loss=LOSSES.get(loss, {"name": loss}), train=train,
            method={"name": "cps", "cutmix": cutmix}, augment={"scale": [0.4, 1.2]},
        )  # fmt: skip
        results.append(launch(config, processes, "batch" if norm == "frozen" else norm, tmp_path))
    (one, rows_one), (two, rows_two) = results
    for name, value in one["modules"]["method"].items():
        torch.testing.assert_close(two["modules"]["method"][name], value, rtol=0, atol=1e-5, msg=name)
    for a, b in zip(rows_one, rows_two, strict=True):
        for name in a["losses"]:
            assert b["losses"][name] == pytest.approx(a["losses"][name], abs=1e-5), (a["step"], name)
