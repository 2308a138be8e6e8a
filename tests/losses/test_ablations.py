"""Ablations of FPL against their formulas, pixel by pixel, and statements of the paper's appendix."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fuzzyseg import assign_fuzzy_positives, fuzzy_membership, fuzzy_positive_loss, fuzzy_positive_weight
from fuzzyseg.losses import PIXEL_LOSSES, PIXEL_OPTIONS, SET_LOSSES, masked_mean
from fuzzyseg.losses.ablations import negative_learning, partial_label

SIZE = (5, 6)
VALID = torch.ones(2, *SIZE, dtype=torch.bool)


def logits(seed: int, scale: float = 1.5, classes: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(2, classes, *SIZE, generator=generator, dtype=torch.float64)


def call(name: str, z: Tensor, t: Tensor, **options: object) -> Tensor:
    return PIXEL_LOSSES[name](z, t, size=SIZE, valid=VALID, **{"threshold": 0.9, **options}).loss


def literal(name: str, z: Tensor, mu: Tensor) -> Tensor:
    """By a loop over pixels and classes."""
    out = torch.zeros(2, *SIZE, dtype=torch.float64)
    for b in range(2):
        for y in range(SIZE[0]):
            for x in range(SIZE[1]):
                row, m = z[b, :, y, x].tolist(), mu[b, :, y, x].tolist()
                total = sum(math.exp(v) for v in row)
                p = [math.exp(v) / total for v in row]
                if name == "negative":
                    out[b, y, x] = -sum((1 - k) * math.log(1 - q) for q, k in zip(p, m, strict=True))
                else:
                    out[b, y, x] = -math.log(sum(q * k for q, k in zip(p, m, strict=True)))
    return out


@pytest.mark.parametrize("name", ["negative", "partial"])
@pytest.mark.parametrize("rule", ["n-1", "n", "continuous", 2])
def test_equal_a_literal_loop_over_pixels(name: str, rule: str | int) -> None:
    z, t = logits(1), logits(2)
    mu = fuzzy_membership(t, rule=rule)
    expected = literal(name, z, mu)
    torch.testing.assert_close(call(name, z, t, rule=rule, weight="none"), expected)
    weight = fuzzy_positive_weight(t, mu)
    torch.testing.assert_close(call(name, z, t, rule=rule), weight * expected)
    balanced = PIXEL_LOSSES[name](z, t, size=SIZE, valid=VALID, threshold=0.9, rule=rule, balance=True)
    torch.testing.assert_close(balanced.loss.mean(), call("hard", z, t).mean())
    result = PIXEL_LOSSES[name](z, t, size=SIZE, valid=VALID, threshold=0.9, rule=rule, maps=True)
    assert torch.equal(result.k, (mu > 0).sum(1))
    torch.testing.assert_close(result.stats["k_histogram"], result.k.flatten().bincount(minlength=5)[1:] / 60)


@pytest.mark.parametrize("function", [negative_learning, partial_label])
def test_gradients_and_extreme_logits(function: object) -> None:
    z, mu = logits(3).requires_grad_(), fuzzy_membership(logits(4))
    assert torch.autograd.gradcheck(lambda x: function(x[..., :1, :2], mu[..., :1, :2]), z)
    for scale in (1e4, 1e2):
        far = (z.detach() * scale).float().requires_grad_()
        for members in (mu.float(), mu > 0, mu == 1):
            loss = function(far, members)
            (grad,) = torch.autograd.grad(loss.sum(), far)
            assert loss.isfinite().all()
            assert grad.isfinite().all()
            assert grad.sum(1).abs().max() < 1e-4
    sure = torch.tensor([[60.0, 0.0, 0.0]])  # fp32 has no 1 - e^-60
    wrong = torch.tensor([[False, True, False]])
    assert float(function(sure, wrong)) == pytest.approx(60 if function is partial_label else 60 - math.log(2))


def test_one_positive_makes_all_but_negative_learning_cross_entropy() -> None:
    z, t = logits(5), logits(6)
    ce = F.cross_entropy(z, t.argmax(1), reduction="none")
    for name in ("fuzzy", "partial"):
        torch.testing.assert_close(call(name, z, t, k_cap=1, weight="none"), ce)
    torch.testing.assert_close(call("negative", z[:, :2], t[:, :2], weight="none"), ce_of(z[:, :2], t[:, :2]))


def ce_of(z: Tensor, t: Tensor) -> Tensor:
    return F.cross_entropy(z, t.argmax(1), reduction="none")


def test_hard_with_the_weight_of_fpl_is_fuzzy_with_one_label() -> None:
    z, t = logits(7), logits(8)
    top = t.softmax(1).topk(2, 1).values
    weight = torch.log1p(50 * (top[:, 0] - top[:, 1])) / torch.log1p(50 * top[:, 0])
    torch.testing.assert_close(call("fuzzy", z, t, k_cap=1), weight * ce_of(z, t))
    torch.testing.assert_close(call("fuzzy", z, t, rule=1), weight * ce_of(z, t))


def test_hard_with_the_scale_of_balance() -> None:
    z, t = logits(9).requires_grad_(), logits(10)
    valid = torch.rand(2, *SIZE, generator=torch.Generator().manual_seed(0)) > 0.4
    options = {"size": SIZE, "valid": valid, "threshold": 0.75, "rule": "n", "weight": "linear"}
    fuzzy = PIXEL_LOSSES["fuzzy"](z, t, balance=True, **options)
    hard = PIXEL_LOSSES["hard"](z, t, balance=True, **options)
    torch.testing.assert_close(hard.stats["balance"], fuzzy.stats["balance"])
    factor = masked_mean(ce_of(z, t), valid) / masked_mean(
        fuzzy_positive_loss(z, t, threshold=0.75, rule="n", weight="linear", reduction="none"), valid
    )
    torch.testing.assert_close(hard.loss, factor.detach() * ce_of(z, t) * valid)
    assert not hard.stats["balance"].requires_grad
    assert "balance" not in PIXEL_LOSSES["hard"](z, t, **options).stats


def test_thresholded_keeps_what_the_teacher_is_sure_of() -> None:
    z, t = logits(11), logits(12, scale=4)
    sure = t.softmax(1).amax(1) >= 0.8
    assert 0.2 < sure.double().mean() < 0.8
    valid = torch.rand(2, *SIZE, generator=torch.Generator().manual_seed(1)) > 0.4
    result = PIXEL_LOSSES["thresholded"](z, t, size=SIZE, valid=valid, confidence=0.8, maps=True)
    torch.testing.assert_close(result.loss, ce_of(z, t) * sure * valid)
    assert torch.equal(result.weight, sure.double())
    torch.testing.assert_close(result.stats["weight"], sure[valid].double().mean())
    assert torch.equal(call("thresholded", z, t, confidence=0.0), ce_of(z, t))
    edge = torch.tensor([0.75, 0.25], dtype=torch.float64).log().view(1, 2, 1, 1)
    reached = {"size": (1, 1), "valid": torch.ones(1, 1, 1)}
    assert PIXEL_LOSSES["thresholded"](edge, edge, confidence=float(edge.softmax(1)[0, 0]), **reached).loss > 0
    with pytest.raises(ValueError, match=r"confidence: found 1.5, expected a probability in \[0, 1\]"):
        PIXEL_LOSSES["thresholded"](z, t, size=SIZE, valid=VALID, confidence=1.5)


def test_the_table_of_options_holds_for_every_loss() -> None:
    assert PIXEL_OPTIONS.keys() == PIXEL_LOSSES.keys()
    assert set(SET_LOSSES) < set(PIXEL_LOSSES)
    values = {"weight": "linear", "a": 3.0, "k_cap": 2, "rule": "n", "variant": "official", "balance": True}
    for name, taken in PIXEL_OPTIONS.items():
        options = {key: {**values, "confidence": 0.3}[key] for key in taken}
        assert not torch.equal(call(name, logits(13), logits(14), **options), call(name, logits(13), logits(14))) or (
            not options
        )
        with pytest.raises((TypeError, KeyError, ValueError)):
            call(name, logits(13), logits(14), weight="flat" if "weight" in taken else "linear", balance=True)


def test_the_gradient_cannot_vanish_under_rule_n_minus_1() -> None:
    """Appendix of the paper, teacher = student: for K >= 2 the positives hold at most T, so that
    s >= (1 - T) K^2 / ((1 - T) K^2 + T); under rule n they may hold almost all, and s falls towards 0.
    """
    generator = torch.Generator().manual_seed(0)
    scale = torch.rand(100_000, 1, generator=generator, dtype=torch.float64) * 4
    t = scale * torch.randn(100_000, 10, generator=generator, dtype=torch.float64)
    smallest = {}
    for rule in ("n-1", "n", "continuous"):
        z = t.clone().requires_grad_()
        loss = fuzzy_positive_loss(z, t, rule=rule, weight="none", reduction="none")
        (grad,) = torch.autograd.grad(loss.sum(), z)
        s = grad.abs().sum(1) / 2
        k = assign_fuzzy_positives(t, rule=rule).sum(1)
        below = t.softmax(1).amax(1) <= 0.9  # the top class alone does not exceed T
        smallest[rule] = float(s[below].min())
        if rule == "n-1":
            several = k >= 2
            bound = 0.1 * k**2 / (0.1 * k**2 + 0.9)
            assert (s[several] >= bound[several] - 1e-12).all()
            assert several.sum() > 10_000
    assert smallest["n-1"] >= 0.1 - 1e-12
    assert smallest["n"] < 1e-3
    # Ours: with x = (1 - T) sum of 1/p over the full positives, and y the raising term of the fractional class, half
    # the L1 norm of the gradient is at least max(x, y) / (1 + x + y), hence x / (1 + 2 x), and x >= (1 - T) / T.
    assert smallest["continuous"] >= 0.1 / (2 - 0.9) - 1e-12


def test_negative_learning_lifts_the_largest_positive_and_fpl_the_smallest() -> None:
    t = torch.tensor([[0.4, 0.3, 0.2, 0.06, 0.04]], dtype=torch.float64).log()
    z = torch.tensor([[2.0, 0.5, -1.0, 0.0, 1.0]], dtype=torch.float64)[..., None, None].requires_grad_()
    t = t[..., None, None]
    positives = [0, 1, 2]
    assert assign_fuzzy_positives(t, threshold=0.93).flatten().nonzero().flatten().tolist() == positives
    one = {"size": (1, 1), "valid": torch.ones(1, 1, 1), "threshold": 0.93, "weight": "none"}
    losses = {name: PIXEL_LOSSES[name](z, t, **one).loss.sum() for name in SET_LOSSES}
    push = {name: torch.autograd.grad(loss, z)[0].flatten() for name, loss in losses.items()}
    p, e = z.detach().softmax(1).flatten(), (-z.detach()).exp().flatten()
    for name, share in (("negative", p), ("partial", p), ("fuzzy", e)):
        lifts = push[name][positives]
        assert (lifts < 0).all()
        torch.testing.assert_close(lifts / lifts.sum(), share[positives] / share[positives].sum())
    assert push["negative"][positives].argmin() == 0
    assert push["fuzzy"][positives].argmin() == 2
