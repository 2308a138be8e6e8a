"""Photometric changes of N bands, a pixel at a time; and of three bands as before."""

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from fuzzyseg.data.transforms.geometry import Geometry, make_sample
from fuzzyseg.data.transforms.photometric import SHIFT, Colours
from fuzzyseg.data.views import CropPair, Weak, WeakStrong, normalised

MEAN, STD = (0.2, 0.5, 0.4, 0.6, 0.3), (0.1, 0.3, 0.2, 0.05, 0.25)


def image(bands=5, dtype=torch.uint8, height=7, width=6):
    values = torch.rand(bands, height, width, generator=torch.Generator().manual_seed(0))
    return (values * 255).byte() if dtype == torch.uint8 else values * 1.4 - 0.2


def colours(bands):
    return Colours(MEAN[:bands], STD[:bands])


def rounded(value, dtype):
    return min(255, max(0, round(value))) if dtype == torch.uint8 else value


CASES = [(5, torch.uint8), (2, torch.uint8), (5, torch.float32), (3, torch.float32)]


@pytest.mark.parametrize(("bands", "dtype"), CASES)
@pytest.mark.parametrize("factor", [0.0, 0.4, 1.0, 1.7])
def test_brightness_contrast_and_saturation_as_they_are_defined(bands, dtype, factor):
    part = image(bands, dtype)
    scale = 255 if dtype == torch.uint8 else 1
    values = part.double().numpy()
    bright, contrast, saturated = (np.zeros(values.shape) for _ in range(3))
    for (b, y, x), value in np.ndenumerate(values):
        bright[b, y, x] = rounded(int(factor * value) if dtype == torch.uint8 else factor * value, dtype)
        mean = values[b].mean()
        contrast[b, y, x] = rounded(mean + factor * (value - mean), dtype)
        deviations = [(values[i, y, x] - scale * MEAN[i]) / (scale * STD[i]) for i in range(bands)]
        common = sum(deviations) / bands
        changed = (common + factor * (deviations[b] - common)) * scale * STD[b] + scale * MEAN[b]
        saturated[b, y, x] = rounded(changed, dtype)
    each = colours(bands)
    tolerance = {"rtol": 1e-4, "atol": 1.001 if dtype == torch.uint8 else 1e-5}  # ties of rounding
    for result, expected in (
        (each.brightness(part, factor), bright),
        (each.contrast(part, factor), contrast),
        (each.saturation(part, factor), saturated),
    ):
        assert (result.dtype, result.shape) == (part.dtype, part.shape)
        np.testing.assert_allclose(result.double().numpy(), expected, **tolerance)
        assert np.abs(result.double().numpy() - expected).mean() < (0.1 if dtype == torch.uint8 else 1e-5)


@pytest.mark.parametrize(("bands", "dtype"), [*CASES, (3, torch.uint8), (1, torch.uint8)])
@pytest.mark.parametrize("amount", [-0.5, -0.1, 0.0, 0.37])
def test_a_shift_is_added_and_cut_off_at_black_and_white(bands, dtype, amount):
    part = image(bands, dtype)
    unit = 255 if dtype == torch.uint8 else 1
    result = colours(bands).apply(part, [(SHIFT, amount)])
    assert result.dtype == dtype
    expected = np.clip(part.double().numpy() + unit * amount, 0, unit)
    np.testing.assert_allclose(result.double().numpy(), expected, atol=0.5001 if dtype == torch.uint8 else 1e-6)


def test_grey_of_n_bands_leaves_one_value_a_pixel_and_one_band_as_it_is():
    result = colours(5).saturation(image(5, torch.float32), 0.0)
    deviations = (result - torch.tensor(MEAN).view(-1, 1, 1)) / torch.tensor(STD).view(-1, 1, 1)
    torch.testing.assert_close(deviations, deviations[:1].expand(5, -1, -1), rtol=1e-4, atol=1e-4)
    assert torch.equal(colours(1).saturation(image(1), 0.3), image(1))


def test_rgb_of_8_bits_is_changed_by_torchvision():
    part, each = image(3), colours(3)
    assert torch.equal(each.brightness(part, 1.3), tv.adjust_brightness(part, 1.3))
    assert torch.equal(each.contrast(part, 0.6), tv.adjust_contrast(part, 0.6))
    assert torch.equal(each.saturation(part, 0.6), tv.adjust_saturation(part, 0.6))
    assert torch.equal(each.saturation(part, 0.0), tv.rgb_to_grayscale(part, 3))


@pytest.mark.parametrize(("bands", "dtype"), [*CASES, (1, torch.float32)])
@pytest.mark.parametrize("view", [Weak(), WeakStrong(strong=2), CropPair()])
def test_every_view_takes_every_kind_of_image(bands, dtype, view):
    part = image(bands, dtype, 40, 36)
    kind = {"geometry": Geometry((24, 20)), "jitter": 0.4, "mean": MEAN[:bands], "std": STD[:bands], "seed": 5}
    sample = make_sample(view, part, None, **kind)
    again = make_sample(view, part, None, **kind)
    assert sample["image"].shape == (bands, 24, 20)
    for key, value in sample.items():
        assert torch.equal(value, again[key])
        assert value.isfinite().all()
    if isinstance(view, WeakStrong):
        assert sample["strong"].shape == (2, bands, 24, 20)
        assert not torch.equal(sample["strong"][0], sample["strong"][1])


def test_units_and_bytes_of_the_same_image_give_the_same_sample():
    """Geometry and normalisation know no difference; 8 bits are rounded on the way."""
    part = image(5, torch.uint8, 40, 36)
    kind = {"geometry": Geometry((24, 20)), "mean": MEAN, "std": STD}
    for seed in range(8):
        a = make_sample(Weak(), part, None, seed=seed, **kind)
        b = make_sample(Weak(), part.float() / 255, None, seed=seed, **kind)
        assert torch.equal(a["valid"], b["valid"])
        assert (a["image"].dtype, b["image"].dtype) == (torch.uint8, torch.float32)
        assert (a["image"] / 255 - b["image"]).abs().max() <= 1.01 / 255
        mean, std, valid = torch.tensor(MEAN), torch.tensor(STD), a["valid"].unsqueeze(0)
        off = [normalised(each["image"].unsqueeze(0), valid, mean, std) * std.view(-1, 1, 1) for each in (a, b)]
        assert (off[0] - off[1]).abs().max() <= 1.01 / 255


def test_the_draws_do_not_depend_on_the_bands():
    """One seed, one geometry: the flips and crops of 3 and of 5 bands are the same."""

    def kind(bands):
        return {"geometry": Geometry((24, 20)), "mean": MEAN[:bands], "std": STD[:bands], "colours_later": True}

    for seed in range(10):
        before = make_sample(WeakStrong(), image(5), None, seed=seed, **kind(5))
        after = make_sample(WeakStrong(), image(3), None, seed=seed, **kind(3))
        for name in ("valid", "changes", "shown"):
            assert torch.equal(before[name], after[name])
