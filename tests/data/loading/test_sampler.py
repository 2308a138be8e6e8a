"""Sampler: permutations, partners, and weights that steer them, all as functions of (seed, stream, number)."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzzyseg.data.loading.sampler import PUBLISH_DELAY, Sampler, derangement, draw_seed, index_at, permutation
from fuzzyseg.data.sample import DataError
from fuzzyseg.data.views import Stream, Weak

COUNTS = {"labelled": 5, "unlabelled": 7, "all": 12}
PAIR = {
    "labelled": Stream(Weak(), "labelled"),
    "unlabelled": Stream(Weak(), "unlabelled"),
    "partner": Stream(Weak(), "unlabelled", partner="unlabelled"),
}


def plain(n=7, batch=4, seed=0):
    return Sampler(PAIR, COUNTS | {"unlabelled": n}, batch, seed)


def indices(draws, stream, numbers):
    return [draws.at(stream, number).index for number in numbers]


def test_seeds_are_stable_and_their_own():
    assert draw_seed(0, "unlabelled", 0) == draw_seed(0, "unlabelled", 0)
    seeds = {draw_seed(s, name, n) for s in range(5) for name in ("a", "b", "a1", "1a") for n in range(200)}
    assert len(seeds) == 5 * 4 * 200
    assert all(0 <= seed < 2**62 for seed in seeds)
    assert max(seeds) > 2**61


def test_seeds_are_the_same_in_every_process():
    assert (
        draw_seed(3, "unlabelled", 17) == 2849633799282194784
    )  # Python's own hash of a text differs from process to process


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 40), st.integers(0, 10))
def test_every_epoch_sees_every_image_once(seed, n, epoch):
    assert sorted(permutation(seed, "unlabelled", epoch, n).tolist()) == list(range(n))
    numbers = range(epoch * n, (epoch + 1) * n)
    assert [index_at(seed, "unlabelled", k, n) for k in numbers] == permutation(seed, "unlabelled", epoch, n).tolist()


def test_epochs_streams_and_seeds_have_orders_of_their_own():
    orders = [tuple(permutation(s, name, e, 30).tolist()) for s in (0, 1) for name in ("a", "b") for e in (0, 1)]
    assert len(set(orders)) == len(orders)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 40))
def test_a_partner_draws_the_same_list_and_never_the_same_image(seed, n):
    draws = plain(n, seed=seed)
    numbers = range(4 * n)  # three borders of epochs
    own, other = indices(draws, "unlabelled", numbers), indices(draws, "partner", numbers)
    assert all(a != b for a, b in zip(own, other, strict=True))
    for epoch in range(4):
        assert sorted(other[epoch * n : (epoch + 1) * n]) == list(range(n))


def test_every_derangement_is_as_likely_as_any_other():
    counts = {}
    for epoch in range(1800):
        order = tuple(derangement(1, "partner", epoch, 4).tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 9  # of 24 permutations of 4
    assert 140 < min(counts.values()) <= max(counts.values()) < 265


def test_partners_change_from_epoch_to_epoch():
    draws = plain(20)
    pairs = [
        {tuple(indices(draws, name, [k])[0] for name in ("unlabelled", "partner")) for k in range(e * 20, e * 20 + 20)}
        for e in range(2)
    ]
    assert len(pairs[0] & pairs[1]) < 6


def test_too_few_images_are_told_with_what_to_do():
    with pytest.raises(DataError, match=r"'partner'.*found 1 image;.*at least 2.*give more unlabelled images"):
        plain(n=1)
    with pytest.raises(DataError, match=r"'unlabelled' draws unlabelled images: found 0 images"):
        plain(n=0)
    Sampler({"unlabelled": PAIR["unlabelled"]}, {"unlabelled": 1}, 4, 0)


@pytest.mark.parametrize(
    "partner",
    [
        Stream(Weak(), "unlabelled", partner="nobody"),
        Stream(Weak(), "unlabelled", partner="labelled"),
        Stream(Weak(), "unlabelled", partner="partner"),
    ],
)
def test_a_partner_must_be_a_plain_stream_of_the_same_source(partner):
    with pytest.raises(ValueError, match="found partner"):
        Sampler(PAIR | {"third": partner}, COUNTS, 4, 0)


def one_image_per_class(images, n=7):
    """Weights (C,N): class c is drawn for with image images[c] only."""
    weights = torch.zeros(len(images), n)
    for number, image in enumerate(images):
        weights[number, image] = 0.3
    return weights


def test_weights_steer_from_sixteen_steps_later_on():
    draws, before = plain(), plain()
    draws.publish("unlabelled", 5, one_image_per_class([2, 6]))
    border = (5 + PUBLISH_DELAY) * 4
    assert PUBLISH_DELAY == 16
    for number in range(border):
        assert draws.at("unlabelled", number) == before.at("unlabelled", number)
        assert draws.at("unlabelled", number).drawn_for == -1
    steered = [draws.at("unlabelled", number) for number in range(border, border + 400)]
    assert {(draw.drawn_for, draw.index) for draw in steered} == {(0, 2), (1, 6)}
    assert 150 < sum(draw.drawn_for for draw in steered) < 250  # rows of one sum are drawn evenly
    assert [draw.seed for draw in steered] == [draw_seed(0, "unlabelled", n) for n in range(border, border + 400)]
    assert draws.at("labelled", border) == before.at("labelled", border)
    draws.publish("unlabelled", 9, one_image_per_class([4]))
    assert draws.at("unlabelled", border + 15).index in (2, 6)
    assert draws.at("unlabelled", border + 16).index == 4


def test_images_are_drawn_by_their_weight():
    draws = plain()
    draws.publish("unlabelled", 0, torch.tensor([[0.0, 1, 0, 3, 0, 0, 0]]))
    drawn = indices(draws, "unlabelled", range(64, 64 + 800))
    assert set(drawn) == {1, 3}
    assert 540 < drawn.count(3) < 660


def test_classes_are_drawn_in_proportion_to_the_sums_of_their_rows():
    draws = plain()
    weights = torch.zeros(4, 7)
    weights[0, 2], weights[1, 3:6], weights[3, 6] = 0.5, 0.5, 0.001
    draws.publish("unlabelled", 0, weights * 1e-6)
    drawn = [draws.at("unlabelled", number) for number in range(64, 64 + 800)]
    classes = [draw.drawn_for for draw in drawn]
    assert 2 not in classes
    assert 160 < classes.count(0) < 240
    assert 560 < classes.count(1) < 640
    images = [draw.index for draw in drawn if draw.drawn_for == 1]
    assert all(150 < images.count(image) < 250 for image in (3, 4, 5))


def test_a_steered_draw_depends_on_its_number_alone():
    draws, backwards = plain(), plain()
    weights = torch.rand(5, 7, generator=torch.Generator().manual_seed(1))
    draws.publish("partner", 0, weights)
    backwards.publish("partner", 0, weights)
    forward = [draws.at("partner", number) for number in range(64, 164)]
    assert forward == [backwards.at("partner", number) for number in reversed(range(64, 164))][::-1]
    assert len({draw.drawn_for for draw in forward}) == 5


def test_weights_that_are_all_0_steer_nothing():
    draws, before = plain(), plain()
    draws.publish("unlabelled", 0, torch.zeros(3, 7))
    for number in range(64, 164):
        assert draws.at("unlabelled", number) == before.at("unlabelled", number)


def test_a_class_whose_only_image_is_the_other_streams_falls_back_to_the_plain_draw():
    draws, before = plain(), plain()
    draws.publish("unlabelled", 0, one_image_per_class([3]))
    draws.publish("partner", 0, one_image_per_class([3, 3]))
    before.publish("unlabelled", 0, one_image_per_class([3]))
    steered = [draws.at("partner", number) for number in range(64, 164)]
    assert [draw.index for draw in steered] == indices(before, "partner", range(64, 164))
    assert {draw.drawn_for for draw in steered} == {0, 1}


@pytest.mark.parametrize("n", [2, 7])
def test_partners_differ_when_either_is_steered(n):
    for steered in (("unlabelled",), ("partner",), ("unlabelled", "partner")):
        draws = plain(n)
        for stream in steered:
            draws.publish(stream, 0, one_image_per_class([1, 0, 1], n))
        numbers = range(40, 64 + 300)
        own, other = indices(draws, "unlabelled", numbers), indices(draws, "partner", numbers)
        assert all(a != b for a, b in zip(own, other, strict=True))


def test_only_weights_that_still_matter_are_kept_and_restored():
    def train(draws, start, stop):
        """What steps start to stop - 1 draw, with other weights published after each."""
        drawn = []
        for step in range(start, stop):
            drawn += [draws.at(stream, number) for number in range(step * 4, step * 4 + 4) for stream in PAIR]
            draws.publish("unlabelled", step, one_image_per_class([step % 7, (step + 3) % 7]))
        return drawn

    straight, half, resumed = plain(), plain(), plain()
    drawn = train(straight, 0, 60)
    assert train(half, 0, 40) == drawn[: 40 * 12]
    state = half.state_dict()
    assert sorted(state["unlabelled"]) == list(range(23, 40))
    resumed.publish("partner", 50, torch.ones(1, 7))  # belongs to another run: forgotten
    resumed.load_state_dict(state)
    assert train(resumed, 40, 60) == drawn[40 * 12 :]


def test_rarely_published_weights_are_not_forgotten():
    draws = plain()
    draws.publish("unlabelled", 2, one_image_per_class([2]))
    draws.publish("unlabelled", 200, one_image_per_class([5]))
    assert draws.at("unlabelled", 215 * 4 + 3).index == 2
    assert draws.at("unlabelled", 216 * 4).index == 5


def test_the_state_is_loaded_by_torch_with_weights_only(tmp_path):
    draws = plain()
    draws.publish("unlabelled", 3, one_image_per_class([1, 2]))
    torch.save(draws.state_dict(), tmp_path / "state.pt")
    again = plain()
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert indices(again, "unlabelled", range(200)) == indices(draws, "unlabelled", range(200))


def test_published_weights_are_a_copy():
    draws, weights = plain(), one_image_per_class([1])
    draws.publish("unlabelled", 0, weights)
    weights.zero_()
    assert indices(draws, "unlabelled", range(64, 80)) == [1] * 16


@pytest.mark.parametrize(
    ("stream", "weights", "text"),
    [
        ("nobody", torch.ones(2, 7), "found stream 'nobody'"),
        ("unlabelled", torch.ones(2, 6), r"shape \(2, 6\); expected \(classes, 7\)"),
        ("unlabelled", torch.ones(7), "shape"),
        ("unlabelled", -torch.ones(1, 7), "negative"),
        ("unlabelled", torch.full((1, 7), float("nan")), "not finite"),
    ],
)
def test_weights_without_sense_are_refused(stream, weights, text):
    with pytest.raises(ValueError, match=text):
        plain().publish(stream, 0, weights)


def test_weights_are_published_in_order():
    draws = plain()
    draws.publish("unlabelled", 5, torch.ones(1, 7))
    draws.publish("unlabelled", 5, torch.ones(1, 7))
    with pytest.raises(ValueError, match="step 4 after those of step 5"):
        draws.publish("unlabelled", 4, torch.ones(1, 7))
