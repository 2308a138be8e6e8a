"""Damaged files: each is read right or reported by its name; nothing ends the process, stops it, or gives other labels.

The cases run in processes of their own (`attempt.py`), a family each: a decoder that crashes takes the process with it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
COUNTS = {"masks": 650, "images": 520, "lists": 475, "annotations": 400, "windows": 690, "special": 270}
"""Cases of each family, 2,000 or more in all; `special` has as many as there are."""


def run(family, folder):
    """(case, verdict) of every case, and how the process ended."""
    paths = [str(HERE.parents[2] / "src"), os.environ.get("PYTHONPATH", "")]
    process = subprocess.run(
        [sys.executable, str(HERE / "attempt.py"), family, str(COUNTS[family]), str(folder)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,  # a case that never ends
        check=False,
    )
    begun = re.findall(r"^begin (.*)$", process.stdout, re.MULTILINE)
    ended = re.findall(r"^end (.*)$", process.stdout, re.MULTILINE)
    last = begun[-1] if begun else "none"
    assert process.returncode == 0, f"{family}: ended by {process.returncode} in case {last}\n{process.stderr[-3000:]}"
    return list(zip(begun, ended, strict=True))


def test_there_are_two_thousand_cases():
    assert sum(COUNTS.values()) >= 2000


@pytest.mark.slow
@pytest.mark.parametrize("family", COUNTS)
def test_every_damaged_file_is_read_right_or_named(family, tmp_path):
    results = run(family, tmp_path)
    assert len(results) >= COUNTS[family]
    wrong = [f"{case}: {verdict}" for case, verdict in results if verdict.startswith("WRONG")]
    assert not wrong, "\n".join(wrong)
    whole = {verdict for case, verdict in results if " untouched " in case}
    assert "reported" not in whole, "files that are not damaged must be read"
    assert any(verdict == "reported" for _, verdict in results)
    if family == "special":
        assert all(verdict == "reported" for case, verdict in results if case.startswith(("huge", "bomb")))
