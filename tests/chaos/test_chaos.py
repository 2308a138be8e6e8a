"""Killed trainings end bit-equal, and bad inputs are refused: seeded samples of what docs/reliability.md reports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs fork and pidfd_open")


def chaos(script, tmp_path, *options):
    """What a script of this folder writes with --json. Its faults, if any, are the test's message."""
    result = tmp_path / "result.json"
    command = [sys.executable, str(HERE / script), *options, "--json", str(result)]
    source = os.pathsep.join([str(HERE.parents[1] / "src"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": source, "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    return json.loads(result.read_text())


def test_a_sample_of_killed_trainings_ends_bit_equal(tmp_path):
    result = chaos("kills.py", tmp_path, "--kills", "10", "--seed", "1")
    assert len(result["kills"]) == 10
    assert result["runs"] == result["equal"]
    assert len({kill["phase"] for kill in result["kills"]}) >= 3


def test_a_sample_of_bad_inputs_is_refused(tmp_path):
    result = chaos("inputs.py", tmp_path, "--count", "100", "--commands", "2", "--seed", "1")
    assert sum(result["counts"].values()) == 102
    assert len(result["counts"]) == 4


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_two_hundred_killed_trainings_end_bit_equal(tmp_path):
    result = chaos("kills.py", tmp_path, "--kills", "200", "--seed", "0")
    assert len(result["kills"]) == 200
    assert len(result["equal"]) >= 17
    assert result["runs"] == result["equal"]


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_five_thousand_bad_inputs_are_refused(tmp_path):
    result = chaos("inputs.py", tmp_path, "--count", "5000", "--commands", "100", "--seed", "0")
    assert sum(result["counts"].values()) == 5100
