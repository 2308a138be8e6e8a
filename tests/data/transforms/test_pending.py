"""Colour changes made later, on the device: the same changes of the same pixels, drawn by the same seed."""

import random
from dataclasses import replace

import pytest
import torch

from fuzzyseg.data.transforms.geometry import Geometry, make_sample, stacked
from fuzzyseg.data.transforms.photometric import (
    BLUR,
    BRIGHTNESS,
    CONTRAST,
    HUE,
    SATURATION,
    SHIFT,
    Colours,
    Pending,
    as_tensor,
    blurred,
    draw_strong,
    draw_weak,
)
from fuzzyseg.data.views import Batch, CropPair, Weak, WeakStrong

MEAN, STD = [0.2, 0.5, 0.4, 0.6, 0.3], [0.1, 0.3, 0.2, 0.05, 0.25]
CPU = torch.device("cpu")


def picture(bands, dtype, seed=0):
    """Smooth in places and noisy in others, values from end to end."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(bands, 30, 36, generator=generator)
    values[:, :15] = torch.linspace(0, 1, 36)
    return (values * 255).round().byte() if dtype == torch.uint8 else values


def batch_of(view, bands, dtype, later, seeds, geometry):
    samples = [
        make_sample(
            view, picture(bands, dtype, seed), None, geometry=geometry, jitter=0.4,
            mean=MEAN[:bands], std=STD[:bands], seed=seed, colours_later=later,
        )
        for seed in seeds
    ]  # fmt: skip
    content = {key: stacked([sample[key] for sample in samples]) for key in samples[0]}
    assert ("strong" in content) == (isinstance(view, WeakStrong) and not later)
    number = torch.arange(len(samples))
    return Batch(
        image=content["image"], valid=content["valid"], mask=None, index=number, name=["a"] * len(samples),
        seed=number, drawn_for=number, strong=content["strong"].unbind(1) if "strong" in content else (),
        pair=(content["pair_image"], content["pair_valid"]) if "pair_image" in content else None,
        statistics=(torch.tensor(MEAN[:bands]), torch.tensor(STD[:bands])),
        pending=Pending.of(content, Colours(tuple(MEAN[:bands]), tuple(STD[:bands]))),
    )  # fmt: skip


@pytest.mark.parametrize(("bands", "dtype"), [(3, torch.uint8), (5, torch.uint8), (1, torch.uint8), (5, torch.float32)])
@pytest.mark.parametrize(
    "view",
    [
        Weak(), WeakStrong(strong=2), WeakStrong(strong=2, add_brightness=True),
        CropPair(colours=WeakStrong()), CropPair(),
    ],
)  # fmt: skip
@pytest.mark.parametrize("crop", [(20, 24), (40, 44)], ids=["inside", "padded"])
def test_what_is_coloured_later_is_what_would_have_been_coloured_at_once(bands, dtype, view, crop):
    """Padding and flips too. A flipped sum may round another way, which a blur or a factor may carry one level on."""
    geometry = Geometry(crop, (0.7, 1.2), vertical_flip=0.5, blur_reference=30)
    at_once, later = (batch_of(view, bands, dtype, late, range(12), geometry) for late in (False, True))
    assert later.strong == ()
    done, then = at_once.to(CPU), later.to(CPU)
    assert then.pending is None
    assert len(then.strong) == len(done.strong) == (2 if isinstance(view, WeakStrong) else 0)
    pairs = [(done.image, then.image), *zip(done.strong, then.strong, strict=True)]
    pairs += [(done.pair[0], then.pair[0])] if done.pair is not None else []
    level = 1.01 / 255 if dtype == torch.uint8 else 1e-5
    for one, other in pairs:
        off = (one - other).abs() * torch.tensor(STD[:bands]).view(-1, 1, 1)
        assert off.max() <= 2 * level
        assert off.mean() <= 0.02 * level
    unchanged = later.image.float() / (255 if dtype == torch.uint8 else 1)
    moved = (
        then.image * torch.tensor(STD[:bands]).view(-1, 1, 1) + torch.tensor(MEAN[:bands]).view(-1, 1, 1)
    ) - unchanged
    assert (moved.abs() * then.valid.unsqueeze(1)).mean() > 5 * level  # else nothing was coloured here


def test_padding_takes_no_part_in_a_contrast_or_a_blur():
    image = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    image[..., 2:6, 2:6] = 100
    changes = torch.stack([as_tensor([(CONTRAST, 0.0), (BLUR, 1.5)])])
    pending = Pending((changes,), (torch.tensor([[2, 2, 6, 6]]),), Colours((0.5,), (0.2,)))
    assert torch.equal(pending.apply(image, 0), image)


@pytest.mark.parametrize(("paired", "key", "number"), [(False, "strong", 1), (True, "image", 0)])
@pytest.mark.parametrize(("crop", "factor"), [((16, 20), 0.25), ((96, 16), 0.25), ((64, 70), 1.0), ((128, 130), 1.0)])
def test_the_blur_of_a_small_crop_shrinks_with_its_shorter_side(paired, key, number, crop, factor):
    """And with nothing else; that of a large one is as published. At once as later."""
    blurs = WeakStrong(jitter_probability=0.0, grey_probability=0.0, blur_probability=1.0, blur_sigma=(4.0, 8.0))
    view = CropPair(colours=blurs) if paired else blurs
    part = picture(3, torch.float32)
    published, shrunk = (Geometry(crop, (5.0, 5.0), flip=0.0, blur_reference=side) for side in (1, 64))
    options = {"mean": MEAN[:3], "std": STD[:3]}
    for seed in range(5):
        drawn, scaled = (
            make_sample(view, part, None, geometry=each, seed=seed, colours_later=True, **options)["changes"]
            for each in (published, shrunk)
        )
        sigma = float(drawn[number, 0, 1])
        assert drawn[number, 0, 0] == BLUR
        assert 4 <= sigma <= 8
        torch.testing.assert_close(scaled[:, 0, 1], factor * drawn[:, 0, 1])
        made = make_sample(view, part, None, geometry=shrunk, seed=seed, **options)[key].view(3, *crop)
        plain = make_sample(Weak(), part, None, geometry=published, seed=seed, **options)["image"]
        torch.testing.assert_close(made, blurred(plain, factor * sigma))


def test_what_is_drawn_is_in_its_range_and_in_every_order():
    view = WeakStrong(brightness=0.5, contrast=0.4, saturation=0.3, hue=0.2, blur_sigma=(0.5, 1.5))
    ranges = {BRIGHTNESS: (0.5, 1.5), CONTRAST: (0.6, 1.4), SATURATION: (0.7, 1.3), HUE: (-0.2, 0.2), BLUR: (0.5, 1.5)}
    orders, lengths = set(), []
    for seed in range(400):
        changes = draw_strong(random.Random(seed), view)
        lengths.append(len(changes))
        orders.add(tuple(kind for kind, _ in changes[:4]) if len(changes) >= 4 else ())
        for kind, amount in changes:
            low, high = ranges[kind]
            assert low <= amount <= high or (kind, amount) == (SATURATION, 0.0)
    assert len(orders) == 25  # 24 orders of the jitter, and none
    assert set(lengths) == {0, 1, 2, 4, 5, 6}
    assert draw_weak(random.Random(0), 0.0) == []
    added = [draw_strong(random.Random(seed), replace(view, add_brightness=True)) for seed in range(400)]
    amounts = [amount for changes in added for kind, amount in changes if kind == SHIFT]
    assert -0.5 <= min(amounts) < -0.48 < 0.48 < max(amounts) <= 0.5
    assert abs(sum(amounts) / len(amounts)) < 0.05
    assert all(kind != BRIGHTNESS for changes in added for kind, _ in changes)
    assert {kind for kind, _ in draw_weak(random.Random(0), 0.3)} == {BRIGHTNESS, CONTRAST, SATURATION}
