"""Two processes with gloo, started once for all tests of this file."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from toy_training import differences
from two_processes import equal_to_one_process

import fuzzyseg

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    source = Path(next(iter(fuzzyseg.__path__))).parent
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": f"{source}{os.pathsep}{os.getenv('PYTHONPATH', '')}",
    }
    script = Path(__file__).with_name("two_processes.py")
    running = [
        subprocess.Popen(
            [sys.executable, str(script), str(rank), str(folder)],
            env=environment,
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
    return [torch.load(folder / f"seen-{rank}.pt", weights_only=True) for rank in range(2)]


def test_two_processes_equal_one(seen):
    one = equal_to_one_process(slice(0, 4))
    for process in seen:
        for name, value in process["equal"]["weights"].items():
            torch.testing.assert_close(value, one["weights"][name], rtol=0, atol=1e-5)
    assert len(one["lines"]) == len(seen[0]["equal"]["lines"]) == 5
    for line, expected in zip(seen[0]["equal"]["lines"], one["lines"], strict=True):
        assert line["losses"] == pytest.approx(expected["losses"], abs=1e-5)
        assert line["metrics"]["share"] == pytest.approx(expected["metrics"]["share"], abs=1e-5)


def test_every_process_has_noise_of_its_own(seen):
    drawn = [value for process in seen for value in process["equal"]["drawn"]]
    assert len(set(drawn)) == len(drawn) == 10


def test_only_the_first_process_writes(seen):
    assert seen[1]["equal"]["lines"] == []


def test_a_non_finite_loss_ends_both_and_both_name_it(seen):
    for process in seen:
        assert "step 3" in process["broken"]
        assert "consistency is nan" in process["broken"]
        assert "labelled-2-2" in process["broken"]  # an image of the second process


def test_a_signal_to_one_ends_both_after_the_same_step(seen):
    assert [process["signal"] for process in seen] == [{"step": 4, "interrupted": True}] * 2


def test_resuming_gives_each_process_its_own_statistics_back(seen):
    for process in seen:
        straight, parted = process["resumed"]
        assert differences(straight["method"], parted["method"]) == []
    first, second = (process["resumed"][0]["method"] for process in seen)
    different = differences(first, second)
    assert different
    assert all("running" in path for path in different)


def test_both_processes_evaluate_the_same_model(seen):
    first, second = (process["resumed"][0]["scores"] for process in seen)
    assert first == second
    assert len(first) == 4
