"""Selection of the slow tests that `make test` runs."""

import zlib

SAMPLE = 5
"""Sampling interval: with `--slow sample`, one in this many slow tests runs."""


def left_out(nodeid: str, chosen: str) -> bool:
    """Return whether a slow test is skipped. A sampled run decides this by the test's name only."""
    return chosen == "none" or (chosen == "sample" and zlib.crc32(nodeid.encode()) % SAMPLE != 0)
