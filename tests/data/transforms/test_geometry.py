"""Geometry first: pixel (y, x) is the same place in image, strong views, valid and mask, whatever is drawn."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from fuzzyseg.data.transforms import geometry
from fuzzyseg.data.transforms.geometry import Geometry
from fuzzyseg.data.views import CropPair, Weak, WeakStrong, normalised

make_sample = partial(geometry.make_sample, mean=[0.5] * 3, std=[0.25] * 3)
PLAIN = WeakStrong(strong=2, jitter_probability=0, grey_probability=0, blur_probability=0)
STEP = 4  # grey levels from one pixel to the next, so that a fraction of a pixel shows
SCALES = [(0.5, 2.0), (1.0, 1.0), (0.3, 0.5), (3.0, 4.0)]
CROPS = [(24, 20), (9, 33), (50, 50)]


def coordinates(height, width):
    """An image whose channels are y, x and 200; y and x in steps of `STEP` grey levels."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([STEP * y, STEP * x, torch.full_like(y, 200)]).to(torch.uint8)


def noise(height, width, channels=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (channels, height, width), generator=generator).to(torch.uint8)


def draw(view, image, mask=None, *, seed=0, jitter=0.0, mean=0.0, std=1 / 255, **geometry):
    """A sample; unless told otherwise its values are the grey levels of the file."""
    geometry = {"crop": (24, 20), "scale": (0.5, 2.0), "flip": 0.5, "vertical_flip": 0.5} | geometry
    channels = image.shape[0]
    means, stds = [mean] * channels, [std] * channels
    options = {"geometry": Geometry(**geometry), "jitter": jitter, "mean": means, "std": stds}
    sample = make_sample(view, image, mask, seed=seed, **options)
    return finished(sample, means, stds)


def finished(sample, mean, std):
    """What a batch does to its samples at the end."""
    mean, std = torch.tensor(mean), torch.tensor(std)
    valid = {"image": sample["valid"], "strong": sample["valid"], "pair_image": sample.get("pair_valid")}
    for key in valid.keys() & sample.keys():
        images = sample[key] if key == "strong" else sample[key].unsqueeze(0)
        sample[key] = normalised(images, valid[key].expand(len(images), -1, -1), mean, std).view_as(sample[key])
    return sample | ({"mask": sample["mask"].long()} if "mask" in sample else {})


def shown(sample, key):
    """The rectangle of a tensor in which the image is valid."""
    rows, columns = (sample["valid"].any(axis).nonzero().flatten().tolist() for axis in (1, 0))
    part = sample["valid"][rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    assert part.all()
    return sample[key][..., rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


SEEDS = st.integers(0, 2**62 - 1)
SIDES = st.integers(6, 60)


@settings(max_examples=100, deadline=None)
@given(SEEDS, SIDES, SIDES, st.sampled_from(CROPS), st.sampled_from(SCALES))
def test_a_pixel_is_the_same_place_in_all_that_is_drawn(seed, height, width, crop, scale):
    image = coordinates(height, width)
    by_axis = [draw(PLAIN, image, image[axis] // STEP, seed=seed, crop=crop, scale=scale) for axis in (0, 1)]
    for axis, each in enumerate(by_axis):
        valid, labels = each["valid"], each["mask"]
        assert each["image"].shape == (3, *crop)
        assert all(torch.equal(strong, each["image"]) for strong in each["strong"])
        assert torch.equal(labels == 255, ~valid)
        inner = valid & (labels > 3) & (labels < (height, width)[axis] - 4)  # at a border the filter sees one side
        off = (each["image"][axis] / STEP - labels)[inner].abs()
        # the nearest pixel of the file is half a pixel off at most, rounding to a grey level an eighth
        assert not len(off) or float(off.max()) <= 0.5 + 0.13
        assert (each["image"][2][valid] - 200).abs().max() < 0.01
        assert (each["image"][:, ~valid] == 0).all()


@pytest.mark.parametrize("scale", [0.53, 0.73, 1.0, 1.47, 2.0])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_crop_is_a_window_of_the_resized_image(scale, channels):
    image = noise(60, 44, channels)
    mask = noise(60, 44, 1, seed=1)[0] % 19
    size = [round(60 * scale), round(44 * scale)]
    whole = F.resize(image, size, InterpolationMode.BILINEAR, antialias=True).float()
    labels = F.resize(mask[None], size, InterpolationMode.NEAREST_EXACT)[0].long()
    # a centre that lies on a border of two of the file's pixels is equally near to both
    clear = [(2 * torch.arange(new) + 1) * old % (2 * new) != 0 for old, new in zip((60, 44), size, strict=True)]
    clear = clear[0][:, None] & clear[1]
    assert clear.float().mean() > 0.9
    for seed in range(6):
        each = draw(Weak(), image, mask, seed=seed, scale=(scale, scale), flip=0, vertical_flip=0, crop=(16, 20))
        matches = [
            (y, x)
            for y in range(size[0] - 16 + 1)
            for x in range(size[1] - 20 + 1)
            if (whole[:, y : y + 16, x : x + 20] - each["image"]).abs().max() <= 2.01  # 8-bit rounding of two passes
        ]
        assert len(matches) == 1
        (y, x) = matches[0]
        window = (slice(y, y + 16), slice(x, x + 20))
        assert torch.equal(labels[window][clear[window]], each["mask"][clear[window]])


def test_every_crop_that_fits_is_drawn_and_no_other():
    image = coordinates(12, 11)
    corners = set()
    for seed in range(400):
        each = draw(Weak(), image, seed=seed, crop=(9, 8), scale=(1, 1), flip=0, vertical_flip=0)
        assert each["valid"].all()
        corners.add(tuple((each["image"][:2, 0, 0] / STEP).round().int().tolist()))
    assert corners == {(y, x) for y in range(4) for x in range(4)}


def test_the_scale_is_uniform_in_its_range():
    image = coordinates(60, 60)
    factors = []
    for seed in range(300):
        each = draw(Weak(), image, seed=seed, crop=(130, 130), flip=0, vertical_flip=0)
        height, width = each["valid"].any(1).sum(), each["valid"].any(0).sum()
        assert height == width
        factors.append(int(height) / 60)
    assert min(factors) < 0.55
    assert max(factors) > 1.95
    assert 1.17 < sum(factors) / len(factors) < 1.33


def test_halves_draw_every_second_scale_below_1_evenly_on_both_sides():
    geometry = Geometry((8, 8), (0.5, 2.0), "halves")
    below, above = [], []
    for seed in range(4000):
        scale = geometry.draw_scale(random.Random(seed))
        (below if scale < 1 else above).append(scale)
    assert 1900 < len(below) < 2100
    for scales, low, high in ((below, 0.5, 1.0), (above, 1.0, 2.0)):  # each side uniform: its mean and its variance
        shares = (torch.tensor(scales) - low) / (high - low)
        assert 0 <= shares.min() < 0.01
        assert 0.99 < shares.max() <= 1
        assert shares.mean() == pytest.approx(1 / 2, abs=0.02)
        assert shares.var() == pytest.approx(1 / 12, abs=0.005)
    with pytest.raises(ValueError, match="halves needs a range around 1"):
        Geometry((8, 8), (1.5, 2.0), "halves")


def test_the_default_scale_is_the_first_number_of_the_sample_and_halves_move_no_other_draw():
    """Draws of earlier versions, which samples at a fixed seed depend on: scale, place (y, x), flips."""
    geometry = Geometry((24, 20))
    for seed in range(50):
        draw, same, halves = (random.Random(seed) for _ in range(3))
        assert geometry.draw_scale(draw) == same.uniform(0.5, 2.0)
        replace(geometry, scale_draw="halves").draw_scale(halves)
        assert draw.getstate() == same.getstate() == halves.getstate()


def test_flips_mirror_image_mask_and_valid_together():
    image, mask = noise(10, 12), noise(10, 12, 1)[0] % 7
    same = {"crop": (14, 13), "scale": (1, 1)}
    upright = draw(PLAIN, image, mask, **same, flip=0, vertical_flip=0)
    mirrored = draw(PLAIN, image, mask, **same, flip=1, vertical_flip=0)
    upside_down = draw(PLAIN, image, mask, **same, flip=0, vertical_flip=1)
    assert torch.equal(shown(upright, "image").round().to(torch.uint8), image)
    assert torch.equal(shown(upright, "mask"), mask.long())
    for key in ("image", "strong", "mask"):
        assert torch.equal(shown(mirrored, key), shown(upright, key).flip(-1))
        assert torch.equal(shown(upside_down, key), shown(upright, key).flip(-2))
    both = [draw(Weak(), coordinates(20, 20), seed=s, crop=(8, 8), scale=(1, 1)) for s in range(200)]
    for axis, values in ((1, [e["image"][0, 1, 0] < e["image"][0, 0, 0] for e in both]),
                         (2, [e["image"][1, 0, 1] < e["image"][1, 0, 0] for e in both])):  # fmt: skip
        assert 70 < sum(map(int, values)) < 130, axis


def test_padding_is_the_mean_colour_and_void_in_the_image_is_valid():
    image = torch.full((3, 5, 6), 255, dtype=torch.uint8)
    mask = torch.zeros(5, 6, dtype=torch.uint8)
    mask[2, 3] = 255
    each = draw(PLAIN, image, mask, mean=0.5, std=0.25, crop=(8, 7), scale=(1, 1), flip=0, vertical_flip=0)
    inside = each["valid"]
    assert shown(each, "valid").shape == (5, 6)
    assert inside.sum() == 30
    for view in (each["image"], *each["strong"]):
        assert torch.allclose(view[:, inside], torch.tensor(2.0))
        assert (view[:, ~inside] == 0).all()
    assert each["mask"].dtype == torch.int64
    assert (each["mask"][~inside] == 255).all()
    assert (shown(each, "mask") == 255).nonzero().tolist() == [[2, 3]]


def test_padding_stays_zero_under_strong_colours():
    view = WeakStrong(strong=3, jitter_probability=1, grey_probability=0.5, blur_probability=1)
    for seed in range(20):
        each = draw(view, noise(9, 13), seed=seed, mean=0.4, std=0.2, crop=(24, 24), jitter=0.8)
        for image in (each["image"], *each["strong"]):
            assert image.isfinite().all()
            assert (image[:, ~each["valid"]] == 0).all()
            assert (image[:, each["valid"]] != 0).float().mean() > 0.8


def test_normalisation_is_per_channel():
    image = torch.tensor([10, 20, 30], dtype=torch.uint8).view(3, 1, 1).expand(3, 8, 8)
    geometry = Geometry(crop=(4, 4), scale=(1, 1), flip=0)
    each = make_sample(Weak(), image, None, geometry=geometry, jitter=0, seed=3)
    assert each["image"].dtype == torch.uint8
    each = finished(each, [0.1, 0.2, 0.3], [1.0, 2.0, 4.0])
    expected = (torch.tensor([10, 20, 30]) / 255 - torch.tensor([0.1, 0.2, 0.3])) / torch.tensor([1.0, 2.0, 4.0])
    assert torch.allclose(each["image"], expected.view(3, 1, 1).expand(3, 4, 4))
    assert "mask" not in each
    assert "strong" not in each


@settings(max_examples=100, deadline=None)
@given(SEEDS, SIDES, SIDES, st.sampled_from(CROPS), st.sampled_from(SCALES), st.sampled_from([(0.1, 1.0), (0.4, 0.6)]))
def test_the_boxes_of_a_crop_pair_say_where_both_lie(seed, height, width, crop, scale, overlap):
    image = noise(height, width, seed=seed)
    each = draw(CropPair(overlap), image, image[0] % 9, seed=seed, crop=crop, scale=scale)
    assert each["boxes"].shape == (2, 4)
    assert each["flips"].shape == (2,)
    canvases = []
    for image, valid, box, flip in zip(
        (each["image"], each["pair_image"]),
        (each["valid"], each["pair_valid"]),
        each["boxes"].tolist(),
        each["flips"].tolist(),
        strict=True,
    ):
        assert (box[2] - box[0], box[3] - box[1]) == crop
        canvas = torch.full((4, 500, 500), -1.0)
        views = torch.cat([image, valid[None].float()])
        canvas[:, 100 + box[0] : 100 + box[2], 100 + box[1] : 100 + box[3]] = views.flip(-1) if flip else views
        canvases.append(canvas)
    shared = (canvases[0][3] >= 0) & (canvases[1][3] >= 0)
    assert shared.any()
    assert torch.equal(canvases[0][3, shared], canvases[1][3, shared])
    # each crop is rounded to grey levels twice when it is resampled
    assert (canvases[0][:3, shared] - canvases[1][:3, shared]).abs().max() <= 2.01
    first, second = each["boxes"].tolist()
    for axis in (0, 1):
        assert 1 - abs(first[axis] - second[axis]) / crop[axis] >= overlap[0] - 0.5 / crop[axis]


@settings(max_examples=100, deadline=None)
@given(SEEDS, SIDES, SIDES, st.sampled_from(CROPS), st.sampled_from(SCALES), st.sampled_from([1, 4, 8, 100]))
def test_crops_of_a_pair_lie_a_multiple_of_the_stride_apart(seed, height, width, crop, scale, stride):
    """And within the image wherever the first one is, so that both always see it."""
    view = CropPair((0.1, 1.0), iou=(0.1, 1.0), stride=stride)
    each = draw(view, noise(height, width), seed=seed, crop=crop, scale=scale)
    first, second = each["boxes"].tolist()
    common = 1
    for axis in (0, 1):
        assert (first[axis] - second[axis]) % stride == 0
        common *= crop[axis] - abs(first[axis] - second[axis])
    assert common / (2 * crop[0] * crop[1] - common) >= 0.1
    rows = [[int(valid.any(1).sum()), int(valid.any(0).sum())] for valid in (each["valid"], each["pair_valid"])]
    for axis in (0, 1):  # a crop that fits is full, an image that fits is whole, in both
        assert rows[0][axis] == rows[1][axis]


def test_the_intersection_over_union_of_a_pair_is_as_asked_or_the_crops_are_one():
    image, shares = noise(120, 120), []
    for seed in range(200):
        each = draw(CropPair((0.1, 1.0), iou=(0.3, 0.5)), image, seed=seed, crop=(32, 32), scale=(1, 1))
        first, second = each["boxes"].tolist()
        common = (32 - abs(first[0] - second[0])) * (32 - abs(first[1] - second[1]))
        shares.append(common / (2 * 32 * 32 - common))
    assert all(0.3 <= share <= 0.5 for share in shares)
    assert max(shares) - min(shares) > 0.15
    # nothing but the whole is possible here, and it is not allowed: after fifty draws it is what there is
    tight = draw(CropPair(iou=(0.3, 0.5)), noise(32, 32), crop=(32, 32), scale=(1, 1))
    assert torch.equal(tight["boxes"][0], tight["boxes"][1])


def test_both_crops_of_a_pair_can_have_strong_colours_each_its_own():
    colours = WeakStrong(
        brightness=0.4, contrast=0, saturation=0, hue=0, jitter_probability=1, grey_probability=0, blur_probability=0
    )
    image = (noise(40, 40) // 4) + 60
    still = {"crop": (40, 40), "scale": (1, 1), "flip": 0, "vertical_flip": 0}
    factors = []
    for seed in range(30):
        each = draw(CropPair(colours=colours), image, seed=seed, jitter=0.9, **still)  # the mild jitter gives way
        for key in ("image", "pair_image"):
            factor = float(each[key].sum() / image.float().sum())
            assert (each[key] - factor * image).abs().max() <= 1.5
            factors.append(factor)
        assert abs(factors[-1] - factors[-2]) > 1e-4
    assert 0.59 < min(factors) < 0.7
    assert 1.3 < max(factors) < 1.41
    plain = draw(CropPair(), image, **still)
    assert torch.equal(plain["image"].round(), image.float())
    assert torch.equal(plain["pair_image"].round(), image.float())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"overlap": (0.5, 0.1)}, "overlap"), ({"iou": (0.1, 1.5)}, "iou"), ({"stride": 0}, "stride")],
)
def test_pairs_that_no_crops_can_be_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        CropPair(**wrong)


def test_crops_of_a_pair_share_as_much_as_was_asked():
    image = noise(120, 120)
    shares, flips, order = [], [], []
    for seed in range(200):
        each = draw(CropPair((0.25, 0.75)), image, seed=seed, crop=(32, 32), scale=(1, 1), vertical_flip=0)
        first, second = each["boxes"].tolist()
        shares += [1 - abs(first[axis] - second[axis]) / 32 for axis in (0, 1)]
        order.append(first[0] < second[0])
        flips.append(tuple(each["flips"].tolist()))
        assert each["valid"].all()
        assert each["pair_valid"].all()
    assert min(shares) == 0.25
    assert max(shares) > 0.6
    assert sum(share > 0.75 for share in shares) < 0.4 * len(shares)  # only where the image ends
    assert set(flips) == {(a, b) for a in (False, True) for b in (False, True)}
    assert 60 < sum(order) < 140


def test_the_box_of_a_crop_is_in_the_scaled_image():
    for seed in range(20):
        each = draw(CropPair(), coordinates(50, 40), seed=seed, crop=(16, 16), scale=(1, 1), flip=0, vertical_flip=0)
        for image, box in zip((each["image"], each["pair_image"]), each["boxes"].tolist(), strict=True):
            assert (image[:2, 0, 0] / STEP).round().int().tolist() == box[:2]


def test_strong_views_differ_in_colour_but_not_in_place():
    view = WeakStrong(
        strong=2, brightness=0.4, contrast=0, saturation=0, hue=0, jitter_probability=1, grey_probability=0,
        blur_probability=0,
    )  # fmt: skip
    image = (noise(40, 40) // 4) + 60
    factors = []
    for seed in range(30):
        each = draw(view, image, seed=seed, jitter=0.0)
        valid = each["valid"]
        for strong in each["strong"]:
            factor = float(strong[:, valid].sum() / each["image"][:, valid].sum())
            assert (strong - factor * each["image"])[:, valid].abs().max() <= 1.5  # one factor for all pixels
            factors.append(factor)
    assert len({round(f, 4) for f in factors}) > 50
    assert 0.59 < min(factors) < 0.7
    assert 1.3 < max(factors) < 1.41


def test_grey_hue_saturation_and_blur_do_what_they_say():
    off = {"jitter_probability": 0, "grey_probability": 0, "blur_probability": 0, "strong": 1}
    image, still = noise(30, 30), {"scale": (1, 1), "crop": (30, 30), "flip": 0, "vertical_flip": 0, "seed": 2}
    grey = draw(WeakStrong(**off | {"grey_probability": 1}), image, **still)["strong"][0]
    assert torch.equal(grey[0], grey[1])
    assert torch.equal(grey[0], grey[2])
    assert not torch.equal(grey, draw(WeakStrong(**off), image, **still)["strong"][0])
    blurred = draw(WeakStrong(**off | {"blur_probability": 1, "blur_sigma": (1.5, 1.5)}), image, **still)["strong"][0]
    assert blurred.std() < 0.5 * image.float().std()
    assert abs(blurred.mean() - image.float().mean()) < 2
    only = off | {"jitter_probability": 1, "brightness": 0, "contrast": 0, "saturation": 0, "hue": 0}
    without_colour = image[:1].expand(3, -1, -1)
    for name in ("hue", "saturation"):
        view = WeakStrong(**only | {name: 0.4})
        assert (draw(view, image, **still)["strong"][0] - image).abs().max() > 5
        assert (draw(view, without_colour, **still)["strong"][0] - without_colour).abs().max() < 1.5
    flat = torch.full((3, 30, 30), 90, dtype=torch.uint8)
    contrast = WeakStrong(**only | {"contrast": 0.5})
    assert (draw(contrast, flat, **still)["strong"][0] - flat).abs().max() < 1.5
    assert (draw(contrast, image, **still)["strong"][0] - image).abs().max() > 5


def test_mild_jitter_changes_the_weak_image_only():
    image, mask = noise(40, 40), noise(40, 40, 1)[0] % 5
    calm, jittered = (draw(PLAIN, image, mask, jitter=strength, seed=5) for strength in (0.0, 0.4))
    assert (calm["image"] - jittered["image"]).abs().max() > 5
    for key in ("strong", "mask", "valid"):
        assert torch.equal(calm[key], jittered[key])


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_other_numbers_of_channels(channels):
    view = WeakStrong(strong=2, jitter_probability=1, grey_probability=1, blur_probability=1)
    each = draw(view, noise(30, 30, channels), jitter=0.3)
    assert each["strong"].shape == (2, channels, 24, 20)
    assert not torch.equal(each["strong"][0], each["strong"][1])


def test_tiny_images_work_with_every_colour_change():
    view = WeakStrong(strong=2, jitter_probability=1, grey_probability=0, blur_probability=1)
    for size in ((1, 1), (1, 9), (2, 3)):
        each = draw(view, noise(*size), scale=(0.1, 0.5), jitter=0.5)
        assert each["valid"].any()
        assert each["strong"].isfinite().all()


@pytest.mark.parametrize("view", [Weak(), WeakStrong(strong=2), CropPair()])
def test_a_sample_depends_on_its_seed_alone(view):
    image, mask = noise(50, 50), noise(50, 50, 1)[0]
    before = (torch.get_rng_state(), random.getstate(), str(np.random.get_state()))
    one = draw(view, image, mask, seed=7, jitter=0.3)
    torch.rand(3)
    other, different = (draw(view, image, mask, seed=seed, jitter=0.3) for seed in (7, 8))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert not torch.equal(one["image"], different["image"])
    torch.set_rng_state(before[0])
    draw(view, image, mask, seed=9, jitter=0.3)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert str(np.random.get_state()) == before[2]


def test_a_method_that_draws_from_the_same_seed_gets_other_numbers():
    image = coordinates(10, 10)
    agree = 0
    for seed in range(300):
        each = draw(Weak(), image, seed=seed, crop=(10, 10), scale=(1, 1), flip=0)
        upside_down = bool(each["image"][0, 0, 0] > each["image"][0, -1, 0])
        agree += upside_down == (float(torch.rand((), generator=torch.Generator().manual_seed(seed))) < 0.5)
    assert 110 < agree < 190


def test_the_input_is_left_alone():
    image, mask = noise(24, 20), noise(24, 20, 1)[0]
    copies = image.clone(), mask.clone()
    each = draw(PLAIN, image, mask, crop=(24, 20), scale=(1, 1), jitter=0.5)
    each["image"].zero_()
    each["mask"].zero_()
    assert torch.equal(image, copies[0])
    assert torch.equal(mask, copies[1])


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("together", [True, False])
def test_normalisation_in_any_memory_order(channels, together):
    image = torch.stack([noise(6, 7, channels, seed) for seed in range(2)])
    valid = torch.ones(2, 6, 7, dtype=torch.bool)
    valid[1, 4:] = False
    mean, std = 0.1 + torch.arange(channels) / 10, 0.2 + torch.arange(channels) / 10
    expected = (image.double() / 255 - mean.view(-1, 1, 1)) / std.view(-1, 1, 1) * valid.unsqueeze(1)
    form = torch.channels_last if together else torch.contiguous_format
    result = normalised(image.contiguous(memory_format=form), valid, mean, std)
    torch.testing.assert_close(result.double(), expected, rtol=0, atol=2e-6)
    assert (result[1, :, 4:] == 0).all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("form", [torch.channels_last, torch.contiguous_format])
def test_normalising_leaves_its_input_alone(dtype, form):
    image = noise(6, 7).unsqueeze(0).to(dtype).contiguous(memory_format=form)
    before = image.clone()
    normalised(image, torch.zeros(1, 6, 7, dtype=torch.bool), torch.full((3,), 0.4), torch.full((3,), 0.2))
    assert torch.equal(image, before)


def test_statistics_must_fit_the_channels():
    with pytest.raises(ValueError, match="found 3 means"):
        normalised(noise(8, 8, 1).unsqueeze(0), torch.ones(1, 8, 8).bool(), torch.ones(3), torch.ones(3))


@settings(max_examples=60, deadline=None)
@given(SEEDS, SIDES, SIDES, st.sampled_from(CROPS), st.sampled_from(SCALES))
def test_a_focused_crop_shows_the_class(seed, height, width, crop, scale):
    mask = torch.zeros(height, width, dtype=torch.uint8)
    mask[height // 3 : height // 3 + 4, width // 2 : width // 2 + 4] = (
        3  # large enough to be seen at the smallest scale
    )
    focused = make_sample(
        Weak(), noise(height, width), mask, geometry=Geometry(crop=crop, scale=scale), seed=seed, focus=3
    )
    assert (focused["mask"] == 3).any()
    geometry = Geometry(crop=crop, scale=scale)
    absent = make_sample(Weak(), noise(height, width), mask, geometry=geometry, seed=seed, focus=4)
    plain = make_sample(Weak(), noise(height, width), mask, geometry=geometry, seed=seed)
    assert torch.equal(absent["image"], plain["image"])


def test_focused_crops_fall_all_over_the_place():
    """The pixel that must be seen may lie anywhere in the crop."""
    mask = torch.zeros(60, 60, dtype=torch.uint8)
    mask[30, 30] = 1
    geometry = Geometry(crop=(10, 10), scale=(1, 1), flip=0)
    places = set()
    for seed in range(400):
        result = make_sample(Weak(), noise(60, 60), mask, geometry=geometry, seed=seed, focus=1)["mask"]
        places.add(tuple((result == 1).nonzero()[0].tolist()))
    assert len(places) > 90  # of 100
