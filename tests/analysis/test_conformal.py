"""Split-conformal T, against its definition and by the coverage that it reaches; and the temperature before it."""

from __future__ import annotations

import math

import pytest
import torch

from fuzzyseg import assign_fuzzy_positives
from fuzzyseg.analysis.temperature import fitted_temperature
from fuzzyseg.analysis.threshold import (
    conformal_threshold,
    coverage_by_threshold,
    smallest_covering,
)

GRID = torch.linspace(0, 1, 201, dtype=torch.float64).clamp(min=1e-9).tolist()


def draw(count, generator, classes=6):
    """Logits (1,C,1,count) and the truth (1,1,count), drawn from other probabilities than the logits say."""
    logits = 1.5 * torch.randn(1, classes, 1, count, generator=generator, dtype=torch.float64)
    p = torch.softmax(0.5 * logits, 1)[0, :, 0].T
    return logits, torch.multinomial(p, 1, generator=generator).view(1, 1, count)


def critical(logits, target):
    """The smallest T at which each truth is in its set, by Alg. 1 as written: 0 for the most probable class."""
    result = []
    for z, y in zip(logits[0, :, 0].T, target.flatten().tolist(), strict=True):
        total = 0.0
        falling = sorted(range(len(z)), key=lambda c, z=z: -float(z[c]))
        for place, label in enumerate(falling):
            total += float(torch.softmax(z, 0)[label])
            if label == y:
                last = place == len(z) - 1
                result.append(0.0 if place == 0 else math.inf if last else total)
    return sorted(result)


@pytest.mark.parametrize("wanted", [0.5, 0.7, 0.9])
@pytest.mark.parametrize("count", [9, 19, 57])
def test_the_threshold_is_the_finite_sample_quantile_of_the_critical_thresholds(count, wanted):
    """The ceil((n + 1) wanted)-th smallest, brought up to the grid."""
    for seed in range(5):
        logits, target = draw(count, torch.Generator().manual_seed(seed))
        covered, units = coverage_by_threshold(logits, target, GRID)
        result, share = conformal_threshold(covered.sum(0), units.sum(), GRID, wanted)
        place = math.ceil((count + 1) * wanted - 1e-9)
        quantile = critical(logits, target)[place - 1]
        expected = next((t for t in GRID if t >= quantile), GRID[-1])
        assert result == expected
        if math.isfinite(quantile):
            assert share >= place / count - 1e-9


def test_out_of_reach_is_the_last_threshold():
    covered = torch.tensor([3.0, 8.0])
    assert conformal_threshold(covered, torch.tensor(8), (0.5, 0.9), 0.9)[0] == 0.9  # 8 < 9 * .9: all are too few
    assert conformal_threshold(torch.tensor([8.0, 9.0]), torch.tensor(9), (0.5, 0.9), 0.9) == (0.9, pytest.approx(1))
    with pytest.raises(ValueError, match="no unit"):
        conformal_threshold(covered, torch.tensor(0), (0.5, 0.9), 0.9)


def test_sets_of_a_new_pixel_hold_the_truth_as_often_as_wanted_and_those_of_the_plain_quantile_do_not():
    """2,000 draws of 10 calibration pixels: expected are 8 / 11 and 7 / 11, with a standard error below .004."""
    generator, expected, draws = torch.Generator().manual_seed(0), 0.7, 2000
    fresh = draw(4000, generator)
    by_threshold, units = coverage_by_threshold(*fresh, GRID)
    at = dict(zip(GRID, (by_threshold.sum(0) / units.sum()).tolist(), strict=True))
    conformal, plain = [], []
    for _ in range(draws):
        covered, units = coverage_by_threshold(*draw(10, generator), GRID)
        conformal.append(at[conformal_threshold(covered.sum(0), units.sum(), GRID, expected)[0]])
        plain.append(at[smallest_covering(covered.sum(0), units.sum(), GRID, expected)[0]])
    assert sum(conformal) / draws >= expected
    assert sum(plain) / draws < expected - 0.01


def test_by_class_the_coverage_is_that_of_the_pixels_with_this_label():
    generator = torch.Generator().manual_seed(0)
    logits, target = draw(400, generator)
    target[0, 0, :20] = 255
    covered, units = coverage_by_threshold(logits, target, (0.6, 0.9))
    label, seen = logits.argmax(1), target != 255
    for place, t in enumerate((0.6, 0.9)):
        inside = assign_fuzzy_positives(logits, threshold=t).gather(1, torch.where(seen, target, 0)[:, None])[:, 0]
        for c in range(6):
            assert float(covered[c, place]) == int((inside & seen & (label == c)).sum())
            assert int(units[c]) == int((seen & (label == c)).sum())


@pytest.mark.parametrize("true", [0.4, 1.0, 2.5])
def test_the_temperature_of_miscalibrated_logits_is_found(true):
    """Truths drawn from softmax(z), logits shown as true * z: dividing by `true` is right."""
    generator = torch.Generator().manual_seed(0)
    z = 2 * torch.randn(20000, 5, generator=generator, dtype=torch.float64)
    y = torch.multinomial(torch.softmax(z, 1), 1, generator=generator).flatten()
    result = fitted_temperature(true * z, y)
    assert result == pytest.approx(true, rel=0.03)

    def nll(t):
        return float(torch.nn.functional.cross_entropy(true * z / t, y))

    assert nll(result) <= min(nll(result * 1.001), nll(result / 1.001))


def test_a_temperature_stays_within_its_range_and_needs_a_pixel():
    z = torch.eye(4)
    assert fitted_temperature(5 * z, torch.arange(4)) == pytest.approx(0.1)  # never wrong
    assert fitted_temperature(5 * z, torch.arange(4).roll(1)) == pytest.approx(10)  # always
    with pytest.raises(ValueError, match="no pixel"):
        fitted_temperature(z[:0], torch.arange(0))
