"""Pitfalls of fast forms: rounding, ties, extreme logits, NaN, sums of many numbers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fuzzyseg import fuzzy_positive_loss
from fuzzyseg.losses import PIXEL_LOSSES


@pytest.fixture(autouse=True)
def _chosen_by_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FUZZYSEG_KERNEL", raising=False)


def random_logits(*shape: int, seed: int = 0, scale: float = 2.0, dtype: torch.dtype = torch.float32) -> Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def oracle(monkeypatch: pytest.MonkeyPatch, call, *arguments, **options):
    """The same call with the readable form."""
    with monkeypatch.context() as patch:
        patch.setenv("FUZZYSEG_KERNEL", "reference")
        return call(*arguments, **options)


def test_rank_1_is_decided_by_comparison() -> None:
    """If p_1 rounds to 1, all cumulative sums are equal, and ranking by sums would put all classes first."""
    z = random_logits(1, 21, 16, 16, seed=11).requires_grad_()
    t = torch.zeros(1, 21, 16, 16)
    t[:, 4] = 40.0
    for threshold in (0.9, 1.0):
        result, stats = fuzzy_positive_loss(z, t, threshold=threshold, return_stats=True)
        assert stats["k_histogram"][0 if threshold < 1 else 19] == 1
        assert stats["label_histogram"][4] == 1
    result = fuzzy_positive_loss(z, t)
    torch.testing.assert_close(result, F.cross_entropy(z, t.argmax(1)))
    expected = torch.autograd.grad(F.cross_entropy(z, t.argmax(1)), z)[0]
    torch.testing.assert_close(torch.autograd.grad(result, z)[0], expected)


def test_weights_of_uniform_pixels_are_never_below_zero() -> None:
    for classes in (3, 7, 21, 150):
        result = fuzzy_positive_loss(
            random_logits(1, classes, 16, 16), random_logits(1, classes, 16, 16, scale=1e-7), reduction="none"
        )
        assert (result >= 0).all()
        assert (result < 1e-3).all()


def test_the_largest_k_is_c_minus_1_whatever_the_sums_round_to() -> None:
    t = random_logits(1, 21, 64, 64, seed=12, scale=6.0)
    _, stats = fuzzy_positive_loss(t, t, threshold=1.0, return_stats=True)
    assert stats["k_histogram"][-1] == 1
    _, stats = fuzzy_positive_loss(t, t, threshold=1.0, return_stats=True, rule="n")
    assert stats["k_histogram"][-1] == 1


@pytest.mark.parametrize("size", [80.0, 1e4])
@pytest.mark.parametrize("rule", ["n-1", "continuous"])
def test_logits_far_apart_stay_exact(monkeypatch, size: float, rule: str) -> None:
    z = (size * random_logits(1, 7, 16, 16, seed=13, scale=1.0).sign()).requires_grad_()
    t = random_logits(1, 7, 16, 16, seed=14, scale=1.0)
    exact = z.detach().double().requires_grad_()
    result = fuzzy_positive_loss(z, t, reduction="none", rule=rule)
    expected = oracle(monkeypatch, fuzzy_positive_loss, exact, t.double(), reduction="none", rule=rule)
    torch.testing.assert_close(result.double(), expected, rtol=1e-5, atol=1e-5)
    grad, wanted = torch.autograd.grad(result.sum(), z)[0], torch.autograd.grad(expected.sum(), exact)[0]
    torch.testing.assert_close(grad.double(), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["fuzzy", "hard"])
@pytest.mark.parametrize("side", [0, 1])
def test_a_nan_stays_at_its_pixel_and_reaches_its_loss(monkeypatch, kind: str, side: int) -> None:
    valid = torch.ones(2, 12, 12, dtype=torch.bool)
    for channel in (0, 3):
        both = [random_logits(2, 5, 4, 4, seed=15), random_logits(2, 5, 4, 4, seed=16)]
        both[side][1, channel, 2, 1] = torch.nan
        result = PIXEL_LOSSES[kind](*both, size=(12, 12), valid=valid).loss
        expected = oracle(monkeypatch, PIXEL_LOSSES[kind], *both, size=(12, 12), valid=valid).loss
        assert torch.equal(result.isnan(), expected.isnan())
        assert 0 < int(result.isnan().sum()) < 144
        both = [side_.repeat_interleave(3, 2).repeat_interleave(3, 3) for side_ in both]
        result = PIXEL_LOSSES[kind](*both, size=(12, 12), valid=valid).loss
        assert int(result.isnan().sum()) == 9


def test_means_and_counts_are_summed_exactly() -> None:
    """Sequential fp32 sums of half a million numbers have an error of 4e-6."""
    z, t = random_logits(2, 3, 500, 500, seed=17), random_logits(2, 3, 500, 500, seed=18)
    result, stats = fuzzy_positive_loss(z, t, return_stats=True)
    exact = fuzzy_positive_loss(z, t, reduction="none").double().mean()
    assert abs(float(result) - float(exact)) < 1e-7 * float(exact)
    assert float(stats["label_histogram"].double().sum()) == pytest.approx(1, abs=1e-7)


@pytest.mark.parametrize("size", [None, (300, 300)])
def test_the_mean_of_fp16_logits_keeps_its_gradient_under_a_scaled_loss(monkeypatch, size) -> None:
    """1/90,000 of a gradient underflows in fp16 without the factor of a GradScaler."""
    shape = (300, 300) if size is None else (100, 100)
    z = random_logits(1, 7, *shape, seed=19).half().requires_grad_()
    t = random_logits(1, 7, *shape, seed=20, scale=4.0).half()
    valid = torch.rand(1, 300, 300, generator=torch.Generator().manual_seed(1)) > 0.3
    for balance in (False, True):
        options = {"size": size, "valid": valid, "balance": balance}
        losses = [
            fuzzy_positive_loss(z, t, **options),
            oracle(monkeypatch, fuzzy_positive_loss, z, t, **options),
        ]
        torch.testing.assert_close(*losses)
        grads = [torch.autograd.grad(2.0**16 * loss, z)[0].float() for loss in losses]
        assert float((grads[0] - grads[1]).norm() / grads[1].norm()) < 1e-3
