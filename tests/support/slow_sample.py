"""The fixed part of the slow tests that `make test` runs."""

import zlib

SAMPLE = 5
"""With --slow sample, one slow test in so many runs."""


def left_out(nodeid: str, chosen: str) -> bool:
    """Whether a slow test is left out. For a sample it depends on the test's own name alone."""
    return chosen == "none" or (chosen == "sample" and zlib.crc32(nodeid.encode()) % SAMPLE != 0)
