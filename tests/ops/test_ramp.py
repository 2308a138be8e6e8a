import math

from fuzzyseg.ops.ramp import linear_ramp, sigmoid_ramp


def test_linear_ramp_reaches_one_at_its_end_and_stays():
    assert [linear_ramp(step, 4) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert linear_ramp(0, 0) == 1.0


def test_sigmoid_ramp_is_the_published_curve():
    assert sigmoid_ramp(0, 10) == math.exp(-5)
    assert math.isclose(sigmoid_ramp(5, 10), math.exp(-1.25))
    assert sigmoid_ramp(10, 10) == sigmoid_ramp(50, 10) == sigmoid_ramp(3, 0) == 1.0
