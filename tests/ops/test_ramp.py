from fuzzyseg.ops.ramp import linear_ramp


def test_linear_ramp_reaches_one_at_its_end_and_stays():
    assert [linear_ramp(step, 4) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert linear_ramp(0, 0) == 1.0
