"""Every method on two processes with gloo, started once, equals itself on one with the whole batch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import fuzzyseg
from methods.test_contract import CASES, IDS
from methods.two_processes import train

pytestmark = pytest.mark.slow

EXEMPT = {
    "cct": "the perturbations of the features",
    "cutmix_seg": "the share of sure pixels that scales the term",
    "pseudoseg": "the statistics of the calibrating layer's batch norm",
    "pc2seg": "the draws of negatives, and the images that they come from",
    "u2pl": "percentiles of the entropy, partners of a mix, draws of anchors and keys",
    "vat": "the noise that the direction starts from",
}
"""Method -> what it keeps per process, as its docstring says; its losses must be finite, its processes equal."""


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    source = Path(next(iter(fuzzyseg.__path__))).parent
    path = os.pathsep.join([str(source), os.getenv("PYTHONPATH", "")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    script = Path(__file__).with_name("two_processes.py")
    running = [
        subprocess.Popen([sys.executable, str(script), str(rank), str(folder)], env=environment,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for rank in range(2)
    ]  # fmt: skip
    try:
        outputs = [process.communicate(timeout=500)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0, 0], "\n".join(outputs)
    return [torch.load(folder / f"seen-{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("number", range(len(CASES)), ids=IDS)
def test_two_processes_equal_one(seen, number):
    first, second = (process[number] for process in seen)
    for key, value in first["state"].items():  # batch-norm's statistics are each process's own
        assert "running_" in key or torch.equal(value, second["state"][key]), key
    if CASES[number][0] in EXEMPT:
        assert all(value == value for losses in first["losses"] for value in losses.values())
        return
    one = train(CASES[number], slice(0, 4))
    for a, b, whole in zip(first["losses"], second["losses"], one["losses"], strict=True):
        for key, value in whole.items():  # DDP averages gradients, so the mean of the losses is the loss
            # 1e-6 of the value as well: GCT's flaws, ×30, make losses of 100, whose float32 steps are 8e-6
            assert (a[key] + b[key]) / 2 == pytest.approx(value, rel=1e-6, abs=1e-5), key
    for key, value in one["state"].items():
        if key.startswith("bank."):  # the same rows in the order of the processes: see test_cac.py
            continue
        torch.testing.assert_close(
            first["state"][key], value, rtol=0, atol=1e-5, msg=lambda text, key=key: f"{key}: {text}"
        )
