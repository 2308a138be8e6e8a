"""Errors of writing, as the main process receives them from a worker."""

import errno
import pickle
from pathlib import Path

from fuzzyseg.data import DataError
from fuzzyseg.data.io.write import Unwritable


def test_an_unwritable_file_is_the_same_error_in_another_process():
    before = Unwritable(Path("out"), OSError(errno.ENOSPC, "No space left on device", "out/a.png"), "b.png is complete")
    after = pickle.loads(pickle.dumps(before))
    assert type(after) is Unwritable and isinstance(after, DataError)
    assert str(after) == str(before) == "out/a.png: cannot be written (No space left on device); b.png is complete"
    assert (after.errno, after.filename) == (errno.ENOSPC, "out/a.png")
