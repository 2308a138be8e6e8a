import math

from fuzzyseg.methods.base import linear_ramp, sigmoid_ramp


def test_linear_ramp():
    assert [linear_ramp(step, 4) for step in (0, 1, 3, 9)] == [0.25, 0.5, 1, 1]
    assert linear_ramp(0, 0) == 1


def test_sigmoid_ramp():
    assert math.isclose(sigmoid_ramp(0, 10), math.exp(-5))
    assert math.isclose(sigmoid_ramp(5, 10), math.exp(-1.25))
    assert sigmoid_ramp(10, 10) == sigmoid_ramp(99, 10) == sigmoid_ramp(0, 0) == 1
