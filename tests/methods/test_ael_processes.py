"""Two processes with gloo: AEL's banks, draws and weights are those of one process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import fuzzyseg
from methods.ael_process import learn, rows


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    source = Path(next(iter(fuzzyseg.__path__))).parent
    path = f"{source}{os.pathsep}{os.getenv('PYTHONPATH', '')}"
    running = [
        subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("ael_process.py")), str(rank), str(tmp_path)],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=240)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0, 0], "\n".join(outputs)
    one = learn(slice(0, 4), rows, parallel=False)
    assert one["shown"].any()
    assert not one["shown"].all()
    for rank in range(2):
        seen = torch.load(tmp_path / f"seen-{rank}.pt", weights_only=True)
        for name, value in one.items():
            torch.testing.assert_close(seen[name], value, rtol=0, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
