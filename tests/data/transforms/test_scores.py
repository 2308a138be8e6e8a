"""Stored predictions are scaled, cropped and flipped as their image is."""

from __future__ import annotations

import pytest
import torch

from fuzzyseg.data.transforms.geometry import Geometry, make_sample
from fuzzyseg.data.views import WeakStrong

STATISTICS = {"mean": [0.5, 0.5], "std": [0.2, 0.2]}


def sample(image, scores, seed, **geometry):
    chosen = Geometry(**{"crop": (20, 28), "scale": (0.6, 1.7), "flip": 0.5, "vertical_flip": 0.5} | geometry)
    return make_sample(WeakStrong(1), image, None, scores, geometry=chosen, seed=seed, **STATISTICS)


@pytest.mark.parametrize("seed", range(12))
def test_scores_at_the_images_resolution_stay_on_its_pixels(seed):
    image = torch.rand(2, 24, 40, generator=torch.Generator().manual_seed(1))
    result = sample(image, image.clone(), seed)
    torch.testing.assert_close(result["scores"], result["image"])


@pytest.mark.parametrize("seed", range(12))
def test_scores_of_a_coarser_grid_stay_in_place(seed):
    """A ramp is the same from a grid of cells of 4x4 pixels, but at the border, where interpolation ends."""
    y, x = torch.meshgrid(torch.arange(48.0), torch.arange(64.0), indexing="ij")
    image = torch.stack([y / 48, x / 64])
    cells = image.unfold(1, 4, 4).unfold(2, 4, 4).mean((-1, -2))
    result = sample(image, cells, seed)
    middle = (result["image"] > 0.05).all(0) & (result["image"] < 0.95).all(0) & result["valid"]
    assert middle.float().mean() > 0.3
    assert (result["scores"] - result["image"])[:, middle].abs().max() < 0.01


def test_scores_change_no_draw():
    image = torch.rand(2, 24, 40, generator=torch.Generator().manual_seed(1))
    with_scores, without = sample(image, image.clone(), 5), sample(image, None, 5)
    assert with_scores.keys() - without.keys() == {"scores"}
    assert all(torch.equal(without[key], with_scores[key]) for key in without)
