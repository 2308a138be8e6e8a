"""Coverage at many thresholds from one sort, against the sets themselves."""

import pytest
import torch

from fuzzyseg import fuzzy_membership
from fuzzyseg.analysis.threshold import coverage_by_threshold, smallest_covering
from fuzzyseg.losses.fpl.options import FPLOptions

THRESHOLDS = (0.3, 0.5, 0.75, 0.9, 0.99, 1.0)


@pytest.mark.parametrize("rule", ["n-1", "n", "continuous", 2])
@pytest.mark.parametrize("variant", ["paper", "official"])
@pytest.mark.parametrize("k_cap", [None, 1, 2])
def test_equals_the_membership_of_the_truth(rule, variant, k_cap):
    generator = torch.Generator().manual_seed(0)
    logits = 1.5 * torch.randn(2, 6, 9, 8, generator=generator, dtype=torch.float64)
    logits[0, :, :3] = 0.0  # ties
    target = torch.randint(0, 6, (2, 9, 8), generator=generator)
    target[1, :2] = 255
    seen = target != 255
    options = {"rule": rule, "variant": variant, "k_cap": k_cap}
    by_class, pixels = coverage_by_threshold(logits, target, THRESHOLDS, FPLOptions(**options))
    covered, pixels = by_class.sum(0), pixels.sum()
    assert int(pixels) == int(seen.sum())
    for threshold, result in zip(THRESHOLDS, covered, strict=True):
        mu = fuzzy_membership(logits, threshold=threshold, **options)
        expected = mu.gather(1, torch.where(seen, target, 0).unsqueeze(1)).squeeze(1)[seen].sum()
        torch.testing.assert_close(result.double(), expected)
    assert (covered.diff() >= 0).all()


def test_the_smallest_threshold_that_covers_enough():
    covered = torch.tensor([50.0, 80.0, 95.0, 96.0])
    grid = (0.6, 0.7, 0.8, 0.9)
    assert smallest_covering(covered, torch.tensor(100.0), grid, 0.8) == (0.7, pytest.approx(0.8))
    assert smallest_covering(covered, torch.tensor(100.0), grid, 0.81) == (0.8, pytest.approx(0.95))
    assert smallest_covering(covered, torch.tensor(100.0), grid, 0.99) == (0.9, pytest.approx(0.96))  # out of reach
    with pytest.raises(ValueError, match="no pixel"):
        smallest_covering(covered, torch.tensor(0), grid, 0.9)
