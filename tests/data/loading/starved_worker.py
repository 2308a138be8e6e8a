"""Run by test_workers in a process of its own: reads with a worker that lacks shared memory."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from data.loading.test_loader import FakeReader, loader
from fuzzyseg.data.sample import DataError


class Starved(FakeReader):
    """Limits the shared memory of the worker."""

    def read(self, item, with_mask):
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        return super().read(item, with_mask)


if __name__ == "__main__":
    try:
        for _ in loader(reader=Starved(), workers=1).batches(0, 5):
            pass
    except DataError as error:
        sys.stdout.write(f"DataError: {error}")
