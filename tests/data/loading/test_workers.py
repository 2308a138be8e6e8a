"""A worker that cannot share its batch ends the training with an error, instead of leaving it waiting for ever."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from data.loading.test_loader import FakeReader, loader
from fuzzyseg.data.loading.loader import share
from fuzzyseg.data.sample import DataError


@pytest.mark.skipif(sys.platform != "linux", reason="tensors are handed over otherwise")
def test_a_batch_that_cannot_be_shared_is_an_error():
    script = Path(__file__).with_name("starved_worker.py")
    paths = os.pathsep.join([str(Path(__file__).parents[3] / "src"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.stdout.startswith("DataError: a data worker cannot share its batch"), done.stderr
    assert "/dev/shm" in done.stdout


@pytest.mark.parametrize("error", [RuntimeError("unable to resize"), OSError(errno.EMFILE, "Too many open files")])
def test_a_tensor_that_cannot_be_shared_is_an_error_with_advice(monkeypatch, error):
    def fail(tensor):
        raise error

    monkeypatch.setattr(torch.Tensor, "share_memory_", fail)
    with pytest.raises(DataError, match=r"/dev/shm.*ulimit -n"):
        share({"image": torch.zeros(1)})


class Failing(FakeReader):
    """Raises what is nobody's file's fault."""

    def read(self, item, with_mask):
        raise RuntimeError("can't allocate memory")


def test_an_error_in_a_reading_process_is_not_taken_for_its_death():
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        next(loader(reader=Failing(), workers=1).batches(0, 2))
