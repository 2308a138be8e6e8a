"""A worker that cannot share its batch ends the training with an error, instead of leaving it waiting for ever."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from data.loading.test_loader import FakeReader, loader


@pytest.mark.skipif(sys.platform != "linux", reason="tensors are handed over otherwise")
@pytest.mark.parametrize(("lacks", "advice"), [("files", "ulimit -n"), ("memory", "/dev/shm")])
def test_a_batch_that_cannot_be_handed_over_is_an_error(lacks, advice):
    script = Path(__file__).with_name("starved_worker.py")
    paths = os.pathsep.join([str(Path(__file__).parents[3] / "src"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(script), lacks],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.startswith("DataError: a data worker cannot share its batch"), done.stderr
    assert advice in done.stdout


class Failing(FakeReader):
    """Raises what is nobody's file's fault."""

    def read(self, item, with_mask):
        raise RuntimeError("can't allocate memory")


def test_an_error_in_a_reading_process_is_not_taken_for_its_death():
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        next(loader(reader=Failing(), workers=1).batches(0, 2))
