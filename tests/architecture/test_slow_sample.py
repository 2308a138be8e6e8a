"""The sample of slow tests that `make test` and continuous integration run."""

from support.slow_sample import SAMPLE, left_out

NAMES = [f"tests/methods/test_{number}.py::test_{number}[case]" for number in range(1000)]


def test_a_sample_is_a_fixed_part():
    kept = [name for name in NAMES if not left_out(name, "sample")]
    assert 0.7 < SAMPLE * len(kept) / len(NAMES) < 1.3
    assert kept == [name for name in reversed(NAMES) if not left_out(name, "sample")][::-1]
    assert not left_out("tests/a.py::test_11", "sample")  # as it is in every process, whatever PYTHONHASHSEED
    assert left_out("tests/a.py::test_0", "sample")


def test_all_and_none():
    assert not any(left_out(name, "all") for name in NAMES)
    assert all(left_out(name, "none") for name in NAMES)
