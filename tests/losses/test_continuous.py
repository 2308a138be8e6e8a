"""The continuous form of K: the class at which the sum exceeds T has a fractional membership."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from fuzzyseg import (
    FuzzyPositiveLoss,
    assign_fuzzy_positives,
    fuzzy_membership,
    fuzzy_positive_loss,
    fuzzy_positive_weight,
)
from fuzzyseg.losses import PIXEL_LOSSES

KINDS = ("concave", "linear", "convex", "convex1", "none")


def literal_membership(p: list[float], threshold: float, cap: int | None = None) -> list[float]:
    """1 before c, 0 after c, (T - S_(c-1)) / p_(c) at c; 1 at rank 1 and 0 at rank C; ties by class index."""
    classes = len(p)
    order = sorted(range(classes), key=lambda c: (-p[c], c))
    mu = [0.0] * classes
    before = 0.0
    for rank, c in enumerate(order, 1):
        if rank == 1 or before + p[c] <= threshold:
            mu[c] = 1.0
        else:
            mu[c] = max(0.0, (threshold - before) / p[c])
        if rank == classes or rank > (cap or classes):
            mu[c] = 0.0
        before += p[c]
        if before > threshold:
            break
    return mu


def literal_loss(z: list[float], mu: list[float]) -> float:
    """log(1 + sum over i != j of mu_i (1 - mu_j) e^(z_j - z_i)), pair by pair."""
    classes = range(len(z))
    terms = [0.0]
    for i in classes:
        for j in classes:
            if i != j and mu[i] > 0 and mu[j] < 1:
                terms.append(math.log(mu[i]) + math.log1p(-mu[j]) + z[j] - z[i])
    top = max(terms)
    return top + math.log(sum(math.exp(term - top) for term in terms))


def literal_weight(p: list[float], mu: list[float], official: bool = False) -> float:
    """Eq. 11 with the mu-weighted mean, and q between p_(c) and p_(c+1) in proportion to mu_c."""
    falling = sorted(p, reverse=True)
    size = sum(mu)
    inside = sum(a * b for a, b in zip(mu, p, strict=True))
    full = sum(1 for a in mu if a == 1)
    part = size - full
    q = falling[full] if part == 0 else (1 - part) * falling[full] + part * falling[full + 1]
    m = (inside + q) / (size + 1) if official else inside / size
    return math.log1p(50 * max(m - q, 0)) / math.log1p(50 * m)


def random_logits(*shape: int, seed: int = 0, scale: float = 1.5, dtype: torch.dtype = torch.float64) -> Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


logit = st.one_of(st.floats(-6, 6), st.sampled_from([-1e4, 1e4, -80.0, 80.0, 0.0, 1.0]))


@st.composite
def pixels(draw: st.DrawFn) -> tuple[list[float], list[float]]:
    classes = draw(st.integers(2, 8))
    row = st.lists(logit, min_size=classes, max_size=classes)
    return draw(row), draw(row)


@settings(max_examples=200, deadline=None)
@given(
    both=pixels(),
    threshold=st.one_of(st.sampled_from([0.5, 0.75, 0.9, 0.99]), st.floats(0.05, 0.999)),
    cap=st.one_of(st.none(), st.integers(1, 4)),
)
def test_equals_a_literal_loop(both: tuple[list[float], list[float]], threshold: float, cap: int | None) -> None:
    z, t = (torch.tensor([side], dtype=torch.float64) for side in both)
    p = torch.softmax(t, 1)[0].tolist()
    mu = literal_membership(p, threshold, cap)
    if any(0 < min(v, 1 - v) < 1e-9 for v in mu):
        return  # rounding decides
    result = fuzzy_membership(t, threshold=threshold, k_cap=cap)
    assert result[0].tolist() == pytest.approx(mu, abs=1e-9)
    options = {"threshold": threshold, "k_cap": cap, "rule": "continuous"}
    loss = fuzzy_positive_loss(z, t, weight="none", **options)
    assert float(loss) == pytest.approx(literal_loss(z[0].tolist(), result[0].tolist()), rel=1e-9, abs=1e-12)
    for variant in ("paper", "official"):
        weighted = fuzzy_positive_weight(t, result, variant=variant)
        expected = literal_weight(p, result[0].tolist(), variant == "official")
        assert float(weighted) == pytest.approx(expected, abs=1e-7)  # log1p of a gap that rounds


def test_reference_values() -> None:
    two = torch.tensor([[0.5, 0.49, 0.01]], dtype=torch.float64).log()  # ambiguous between two: the rule n-1 keeps one
    assert fuzzy_membership(two)[0].tolist() == pytest.approx([1, 0.4 / 0.49, 0])
    assert assign_fuzzy_positives(two, rule="continuous").tolist() == [[True, True, False]]
    three = torch.tensor([[0.1, 0.4, 0.2, 0.3]], dtype=torch.float64).log()
    assert fuzzy_membership(three, threshold=0.8)[0].tolist() == pytest.approx([0, 1, 0.5, 1])
    z = torch.tensor([[1.0, -2.0, 0.5, 3.0]], dtype=torch.float64)
    pairs = math.exp(1 + 2) + math.exp(1 - 3)  # class 0, negative, against the positives 1 and 3
    pairs += 0.5 * (math.exp(0.5 + 2) + math.exp(0.5 - 3))  # half of class 2 against them
    pairs += 0.5 * math.exp(1 - 0.5)  # class 0 against the other half of class 2
    loss = fuzzy_positive_loss(z, three, threshold=0.8, rule="continuous", weight="none")
    assert float(loss) == pytest.approx(math.log(1 + pairs))
    m, q = 0.8 / 2.5, 0.5 * 0.2 + 0.5 * 0.1
    weight = fuzzy_positive_weight(three, fuzzy_membership(three, threshold=0.8))
    assert float(weight) == pytest.approx(math.log1p(50 * (m - q)) / math.log1p(50 * m))
    full = fuzzy_positive_loss(z, three, threshold=0.8, rule="continuous")
    assert float(full) == pytest.approx(float(weight) * math.log(1 + pairs))


def test_gradient_is_that_of_the_pairs() -> None:
    z = random_logits(60, 6, seed=1).requires_grad_()
    t = random_logits(60, 6, seed=2).requires_grad_()
    loss = fuzzy_positive_loss(z, t, rule="continuous", weight="none", reduction="none")
    (result,) = torch.autograd.grad(loss.sum(), z, retain_graph=True)
    mu = fuzzy_membership(t)
    assert ((mu > 0) & (mu < 1)).any(1).sum() > 30
    with torch.no_grad():  # d L / d z_k = e^-L (lowering terms of k - raising terms of k)
        pair = mu[:, :, None] * (1 - mu[:, None, :]) * (z[:, None, :] - z[:, :, None]).exp()
        pair.diagonal(dim1=1, dim2=2).zero_()
        expected = (-loss).exp()[:, None] * (pair.sum(1) - pair.sum(2))
    torch.testing.assert_close(result, expected, rtol=1e-10, atol=1e-13)
    assert torch.autograd.grad(loss.sum(), t, allow_unused=True)[0] is None
    leaf = z.detach()[:8].requires_grad_()
    assert torch.autograd.gradcheck(lambda x: fuzzy_positive_loss(x, t[:8].detach(), rule="continuous"), leaf)


@pytest.mark.parametrize("rule", ["continuous", "n-1"])
def test_continuous_in_the_teachers_probabilities(rule: str) -> None:
    """Sharper and sharper teachers: the order stays, K falls from 5 to 1, and differences shrink with the distance."""
    z = random_logits(8, 6, seed=3)
    t = random_logits(8, 6, seed=4)

    def largest_step(count: int) -> tuple[float, float, float]:
        sharper = torch.logspace(-1.5, 1, count, dtype=torch.float64)
        teacher = (t[:, None] * sharper[None, :, None]).reshape(-1, 6)
        student = z[:, None].expand(-1, count, -1).reshape(-1, 6).contiguous().requires_grad_()
        loss = fuzzy_positive_loss(student, teacher, rule=rule, reduction="none")
        (grad,) = torch.autograd.grad(loss.sum(), student)
        weight = fuzzy_positive_weight(teacher, fuzzy_membership(teacher, rule=rule))
        k = assign_fuzzy_positives(teacher, rule=rule).sum(1)
        assert k.max() >= 4
        assert k.min() == 1
        steps = [v.detach().view(8, count, -1).diff(dim=1).abs().max() for v in (loss, grad, weight)]
        return float(steps[0]), float(steps[1]), float(steps[2])

    coarse, fine = largest_step(2000), largest_step(32000)
    for wide, narrow in zip(coarse, fine, strict=True):
        if rule == "continuous":
            assert narrow < wide / 8  # at a sixteenth of the distance
        else:  # the discrete loss jumps where K changes, whatever the distance
            assert narrow > max(0.9 * wide, 0.05)


def test_equals_the_discrete_loss_where_no_class_is_in_between() -> None:
    t = torch.tensor([[0.5, 0.25, 0.125, 0.0625, 0.0625]], dtype=torch.float64).log()
    z = random_logits(1, 5, seed=5).requires_grad_()
    for threshold, k in ((0.5, 1), (0.75, 2), (0.875, 3), (0.9375, 4), (1.0, 4)):
        mu = fuzzy_membership(t, threshold=threshold)
        between = (mu > 1e-12) & (mu < 1 - 1e-12)
        assert not between.any()
        assert int(mu.round().sum()) == k
        losses = [
            fuzzy_positive_loss(z, t, threshold=limit, rule=rule)
            for rule, limit in (("continuous", threshold), ("n-1", min(1.0, threshold + 1e-12)))
        ]
        torch.testing.assert_close(losses[0], losses[1], rtol=1e-9, atol=1e-9)
        grads = [torch.autograd.grad(loss, z)[0] for loss in losses]
        torch.testing.assert_close(grads[0], grads[1], rtol=1e-9, atol=1e-9)
        nearly = fuzzy_positive_loss(z, t, threshold=threshold - 1e-7, rule="continuous")  # from below, by class c
        torch.testing.assert_close(nearly, losses[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", ["two classes", "confident", "capped"])
def test_cross_entropy_where_the_top_class_alone_passes_the_threshold(case: str) -> None:
    classes = 2 if case == "two classes" else 6
    z = random_logits(2, classes, 4, 5, seed=6, dtype=torch.float32).requires_grad_()
    t = random_logits(2, classes, 4, 5, seed=7, dtype=torch.float32)
    if case == "confident":
        t = t + 12 * F.one_hot(t.argmax(1), classes).movedim(-1, 1)
    options = {"rule": "continuous", "k_cap": 1 if case == "capped" else None, "reduction": "none"}
    ce = F.cross_entropy(z, t.argmax(1), reduction="none")
    members = assign_fuzzy_positives(t, rule=1)
    assert torch.equal(fuzzy_membership(t, k_cap=options["k_cap"]), members.float())
    for kind in KINDS:
        expected = fuzzy_positive_weight(t, members, kind=kind) * ce
        loss = fuzzy_positive_loss(z, t, weight=kind, **options)
        torch.testing.assert_close(loss, expected, rtol=1e-6, atol=2e-6)
        grads = [torch.autograd.grad(each.sum(), z, retain_graph=True)[0] for each in (loss, expected)]
        torch.testing.assert_close(grads[0], grads[1], rtol=1e-5, atol=1e-6)


def test_ties_go_by_class_index_and_uniform_teachers_share() -> None:
    flat = torch.zeros(1, 4, 1, 1)
    assert fuzzy_membership(flat, threshold=0.6).flatten().tolist() == pytest.approx([1, 1, 0.4, 0], abs=1e-6)
    assert fuzzy_membership(flat, threshold=0.8).flatten().tolist() == [1, 1, 1, 0]  # the last one never
    assert fuzzy_membership(flat, threshold=0.1).flatten().tolist() == [1, 0, 0, 0]  # the first one always
    assert fuzzy_membership(flat, threshold=1.0).flatten().tolist() == [1, 1, 1, 0]
    assert float(fuzzy_positive_weight(flat, fuzzy_membership(flat, threshold=0.6))) == 0


def test_thresholds_by_pixel_caps_and_discrete_rules() -> None:
    t = random_logits(2, 6, 3, 4, seed=8)
    per_pixel = torch.tensor([0.5, 0.9, 1.0])[torch.arange(24) % 3].view(2, 3, 4).double()
    result = fuzzy_membership(t, threshold=per_pixel)
    for value in (0.5, 0.9, 1.0):
        where = (per_pixel == value).unsqueeze(1).expand_as(result)
        torch.testing.assert_close(result[where], fuzzy_membership(t, threshold=value)[where])
    capped = fuzzy_membership(t, threshold=0.95, k_cap=2)
    assert (capped > 0).sum(1).max() == 2
    assert torch.equal((fuzzy_membership(t, variant="official") > 0).sum(1).clamp(max=3).max(), torch.tensor(3))
    for rule in ("n-1", "n", 2):
        assert torch.equal(fuzzy_membership(t, rule=rule), assign_fuzzy_positives(t, rule=rule).double())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_logits_stay_finite_and_a_nan_shows(dtype: torch.dtype) -> None:
    z = random_logits(200, 7, seed=9, scale=5e3, dtype=dtype).requires_grad_()
    t = random_logits(200, 7, seed=10, scale=0.7, dtype=dtype)
    t[:60] *= 5e3
    z = torch.cat([z, torch.full((1, 7), 1e4, dtype=dtype)]).detach().requires_grad_()
    t = torch.cat([t, torch.zeros(1, 7, dtype=dtype)])
    loss = fuzzy_positive_loss(z, t, rule="continuous", weight="none", reduction="none")
    (grad,) = torch.autograd.grad(loss.sum(), z)
    assert loss.isfinite().all()
    assert grad.isfinite().all()
    assert grad.sum(1).abs().max() < 1e-5
    assert (loss >= 0).all()
    for side in (0, 1):
        broken = [z.detach().clone(), t.clone()]
        for channel in range(7):
            broken[side][channel, channel] = torch.nan
        lost = fuzzy_positive_loss(*broken, rule="continuous", weight="none", reduction="none")
        assert lost[:7].isnan().all()
        assert lost[7:].isfinite().all()


def test_classes_that_the_student_cannot_give() -> None:
    """A negative at -inf adds nothing to the loss and no NaN to the gradient, also beside the fractional class."""
    t = torch.tensor([[0.4, 0.3, 0.2, 0.1], [0.9, 0.05, 0.03, 0.02]], dtype=torch.float64).log()
    z = torch.tensor([[0.3, 1.0, 0.5, -math.inf], [0.0, 1.0, -math.inf, -1.0]], dtype=torch.float64)
    loss = fuzzy_positive_loss(z.requires_grad_(), t, threshold=0.8, rule="continuous", weight="none", reduction="none")
    assert torch.autograd.grad(loss.sum(), z)[0].isfinite().all()
    half = 0.5 * (math.exp(0.5 - 0.3) + math.exp(0.5 - 1.0))
    assert loss.tolist() == pytest.approx([math.log(1 + half), math.log(1 + math.exp(1) + math.exp(-1))])


def test_k_counts_every_class_with_a_membership() -> None:
    z, t = random_logits(2, 6, 4, 4, seed=11), random_logits(2, 6, 4, 4, seed=12)
    valid = torch.rand(2, 4, 4, generator=torch.Generator().manual_seed(0)) > 0.3
    mu = fuzzy_membership(t)
    k = (mu > 0).sum(1)
    _, stats = fuzzy_positive_loss(z, t, rule="continuous", valid=valid, return_stats=True)
    torch.testing.assert_close(stats["k_histogram"], torch.bincount(k[valid] - 1, minlength=5) / valid.sum())
    weight = fuzzy_positive_weight(t, mu)
    torch.testing.assert_close(stats["mean_weight"], weight[valid].mean())
    result = PIXEL_LOSSES["fuzzy"](z, t, size=(4, 4), valid=valid, threshold=0.9, rule="continuous", maps=True)
    assert torch.equal(result.k, k)
    torch.testing.assert_close(result.weight, weight)
    module = FuzzyPositiveLoss(rule="continuous", balance=True)
    hard = F.cross_entropy(z, t.argmax(1), reduction="none")
    torch.testing.assert_close(module(z, t, valid), hard[valid].mean())


def test_wrong_memberships_are_refused() -> None:
    with pytest.raises(ValueError, match=r"members: found torch.int64, expected torch.bool or a floating-point"):
        fuzzy_positive_weight(torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match="rule: found 'smooth', expected 'n-1', 'n', 'continuous'"):
        fuzzy_membership(torch.zeros(2, 3), rule="smooth")
