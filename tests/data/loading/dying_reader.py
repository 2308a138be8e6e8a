"""Run by test_loader in a process of its own: torch answers the death of a child by raising from a signal handler,
which may strike anywhere in the process that started it.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from data.loading.test_loader import FakeReader, loader
from fuzzyseg.data.sample import DataError

if __name__ == "__main__":
    workers = int(sys.argv[1])
    try:
        for _ in loader(reader=FakeReader(deadly="u3", seconds=0.02), workers=workers).batches(0, 50):
            pass
    except DataError as error:
        sys.stdout.write(f"DataError: {error}")
