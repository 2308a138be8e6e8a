"""Quantiles and draws under a mask, against numpy and expected frequencies."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fuzzyseg.methods.cac.cells import seeded_places
from fuzzyseg.methods.pc2seg import draw_weighted
from fuzzyseg.methods.u2pl.contrast import draw_members, valid_quantile


@pytest.mark.parametrize("share", [0.0, 0.1, 0.2, 0.5, 0.83, 1.0])
@pytest.mark.parametrize("kept", [0.0, 0.4, 1.0])
def test_a_quantile_is_numpys_over_the_valid_values(share, kept):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(3, 7, 5, generator=generator)
    valid = torch.rand(3, 7, 5, generator=generator) < kept
    result = valid_quantile(values, valid, share)
    if kept == 0:
        assert result == torch.inf
    else:
        assert float(result) == pytest.approx(np.quantile(values[valid].numpy(), share), abs=1e-6)


def test_a_quantile_of_one_value_is_it():
    valid = torch.tensor([False, True, False])
    assert valid_quantile(torch.tensor([1.0, 5.0, 2.0]), valid, 0.3) == 5


def test_members_are_drawn_evenly_and_nothing_else():
    torch.manual_seed(0)
    members = torch.zeros(3, 20, dtype=torch.bool)
    members[0, [0, 3, 19]] = True
    members[1, 7] = True
    result = draw_members(members, 3000)
    assert result.shape == (3, 3000)
    counts = result[0].bincount(minlength=20)
    assert counts.nonzero().flatten().tolist() == [0, 3, 19]
    assert (counts[[0, 3, 19]] / 3000 - 1 / 3).abs().max() < 0.04
    assert (result[1] == 7).all()
    assert int(result.max()) < 20  # an empty row still gives a position


def test_weighted_draws_follow_the_weights_and_never_take_a_zero():
    torch.manual_seed(0)
    weights = torch.tensor([[0.0, 1.0, 3.0, 0.0], [0.0] * 4, [1e-6, 0.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    result = draw_weighted(weights, 100_000)
    shares = torch.stack([row.bincount(minlength=4) / 100_000 for row in result])
    assert (shares[0] - torch.tensor([0.0, 0.25, 0.75, 0.0])).abs().max() < 0.01
    assert shares[0, 0] == shares[0, 3] == shares[2, 1] == shares[2, 3] == 0
    chi_square = 4 * 100_000 * ((shares[3] - 0.25) ** 2).sum()
    assert chi_square < 16.3  # chi-squared, three degrees of freedom, p = 0.001
    assert int(result.max()) < 4


def test_places_by_seed_are_drawn_once_and_for_each_seed_alone():
    seeds = torch.tensor([4, 9, 4])
    result = seeded_places(seeds, 12, 5)
    assert result.shape == (3, 5)
    assert torch.equal(result[0], result[2])
    assert torch.equal(seeded_places(seeds[1:2], 12, 5)[0], result[1])
    assert not torch.equal(result[0], result[1])
    assert sorted(seeded_places(seeds, 4, 9)[0].tolist()) == [0, 1, 2, 3]
    places = seeded_places(torch.arange(600), 12, 3)
    assert all(len(set(row.tolist())) == 3 for row in places)
    assert (places.flatten().bincount() / 1800 - 1 / 12).abs().max() < 0.03
