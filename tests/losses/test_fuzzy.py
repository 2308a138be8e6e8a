"""Fuzzy positive learning against a literal implementation of the paper, pixel by pixel."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from fuzzyseg import assign_fuzzy_positives, fuzzy_positive_loss, fuzzy_positive_weight, weight_curve

THRESHOLDS = (0.5, 0.75, 0.85, 0.9, 0.95, 0.99, 1.0)
KINDS = ("concave", "linear", "convex", "convex1", "none")


def literal_positives(p: list[float], threshold: float, *, rule: str | int = "n-1", cap: int | None = None) -> set[int]:
    """Alg. 1 with probabilities in descending order, ties by class index. T = 1 is never exceeded."""
    classes = len(p)
    order = sorted(range(classes), key=lambda c: (-p[c], c))
    n, total = 0, 0.0
    while True:
        n += 1
        total += p[order[n - 1]]
        if (total > threshold and threshold < 1) or n == classes:
            break
    k = rule if isinstance(rule, int) else max(n - 1, 1) if rule == "n-1" else n
    return set(order[: min(k, classes - 1, cap or classes)])


def literal_loss(z: list[float], members: set[int]) -> float:
    """Eq. 7 with exact arithmetic on the largest term."""
    lift = [-z[i] for i in sorted(members)]
    push = [z[j] for j in range(len(z)) if j not in members]
    exponent = sum(max(side) + math.log(sum(math.exp(v - max(side)) for v in side)) for side in (lift, push))
    return max(exponent, 0.0) + math.log1p(math.exp(-abs(exponent)))


def random_logits(*shape: int, seed: int = 0, scale: float = 2.0, dtype: torch.dtype = torch.float32) -> Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


logit = st.one_of(
    st.integers(-2, 2).map(float),  # many ties
    st.floats(-8, 8, width=32),
    st.sampled_from([-1e4, 1e4, -80.0, 80.0, 0.0]),
)


@st.composite
def pixels(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    classes, count = draw(st.integers(2, 9)), draw(st.integers(1, 4))
    row = st.lists(logit, min_size=classes, max_size=classes)
    rows = st.lists(row, min_size=count, max_size=count)
    return torch.tensor(draw(rows)), torch.tensor(draw(rows))


@settings(max_examples=150, deadline=None)
@given(
    both=pixels(),
    threshold=st.one_of(st.sampled_from(THRESHOLDS), st.floats(0.05, 1, exclude_min=True)),
    rule=st.sampled_from(["n-1", "n", 1]),
    cap=st.one_of(st.none(), st.integers(1, 4)),
)
def test_equals_a_literal_loop_of_algorithm_1(
    both: tuple[Tensor, Tensor], threshold: float, rule: str | int, cap: int | None
) -> None:
    z, t = (side.double() for side in both)
    members = assign_fuzzy_positives(t, threshold=threshold, rule=rule, k_cap=cap)
    loss = fuzzy_positive_loss(z, t, threshold=threshold, rule=rule, k_cap=cap, weight="none", reduction="none")
    for pixel, p in enumerate(torch.softmax(t, 1).tolist()):
        sums = torch.tensor(sorted(p, reverse=True)).double().cumsum(0)
        if threshold < 1 and float((sums - threshold).abs().min()) < 1e-9 and len(set(p)) > 1:
            continue  # rounding decides
        expected = literal_positives(p, threshold, rule=rule, cap=cap)
        assert set(members[pixel].nonzero().flatten().tolist()) == expected
        assert float(loss[pixel]) == pytest.approx(literal_loss(z[pixel].tolist(), expected), rel=1e-9, abs=1e-12)


@settings(max_examples=100, deadline=None)
@given(both=pixels(), threshold=st.sampled_from(THRESHOLDS), kind=st.sampled_from(KINDS))
def test_finite_bounded_and_signed_for_any_logits(both: tuple[Tensor, Tensor], threshold: float, kind: str) -> None:
    # Teacher logits that differ by less than the rounding of their probabilities are ranked either way: made equal.
    z, t = both[0].requires_grad_(), both[1].mul(1024).round().div(1024)
    members = assign_fuzzy_positives(t, threshold=threshold)
    k = members.sum(1)
    classes = z.shape[1]
    assert ((k >= 1) & (k <= classes - 1)).all()
    assert members.gather(1, t.softmax(1).argmax(1, keepdim=True)).all()  # top-1 is always in
    weight = fuzzy_positive_weight(t, members, kind=kind)
    assert ((weight >= 0) & (weight <= 1)).all()
    loss = fuzzy_positive_loss(z, t, threshold=threshold, weight=kind, reduction="none")
    (grad,) = torch.autograd.grad(loss.sum(), z)
    assert loss.isfinite().all()
    assert grad.isfinite().all()
    assert (grad[members] <= 0).all()
    assert (grad[~members] >= 0).all()
    assert grad.sum(1).abs().max() < 1e-5  # torch.logsumexp would be off by 2e-4 for logits of 1e4
    d = z.detach().masked_fill(members, -torch.inf).amax(1) - z.detach().masked_fill(~members, torch.inf).amin(1)
    plain = fuzzy_positive_loss(z, t, threshold=threshold, weight="none", reduction="none").detach()
    slack = 1e-5 * (1 + d.abs())
    assert (plain >= d.clamp(min=0) - slack).all()
    assert (plain <= d.clamp(min=0) + torch.log1p(k * (classes - k)) + slack).all()


def test_k_grows_with_the_threshold_and_is_c_minus_1_at_one() -> None:
    t = random_logits(3, 7, 4, 5)
    ks = [assign_fuzzy_positives(t, threshold=threshold).sum(1) for threshold in THRESHOLDS]
    assert all((low <= high).all() for low, high in pairwise(ks))
    assert (ks[-1] == 6).all()
    # Sums of fp32 probabilities may exceed 1; K must still be C-1.
    assert (assign_fuzzy_positives(random_logits(2000, 21, scale=6.0), threshold=1.0).sum(1) == 20).all()
    tail = torch.tensor([[0.8, 0.1, 0.1, 0.0, 0.0]]).log()
    assert assign_fuzzy_positives(tail, threshold=1.0).tolist() == [[True, True, True, True, False]]


def test_ties_go_by_class_index() -> None:
    t = torch.zeros(1, 4, 1, 1)
    assert assign_fuzzy_positives(t, threshold=0.5).flatten().tolist() == [True, True, False, False]
    official = assign_fuzzy_positives(t, threshold=0.5, variant="official")  # stops at S = T
    assert official.flatten().tolist() == [True, False, False, False]
    many = torch.zeros(1, 64, 1, 1)  # where an unstable sort shuffles
    assert assign_fuzzy_positives(many, threshold=0.5).flatten().tolist() == [True] * 32 + [False] * 32
    member_rank_1 = assign_fuzzy_positives(torch.tensor([[0.0, 1.0, 1.0]]), threshold=0.1)
    assert member_rank_1.tolist() == [[False, True, False]]


def test_rules_and_caps() -> None:
    t = torch.tensor([[0.4, 0.3, 0.2, 0.06, 0.04]]).log()
    count = {
        ("n-1", None): 2,
        ("n", None): 3,
        (4, None): 4,
        (4, 2): 2,
        ("n", 1): 1,
        ("n-1", 9): 2,
    }
    for (rule, cap), k in count.items():
        assert int(assign_fuzzy_positives(t, threshold=0.8, rule=rule, k_cap=cap).sum()) == k
    two = torch.tensor([[0.5, 0.49, 0.01]]).log()  # ambiguous between two: `n-1` keeps one, `n` both
    assert int(assign_fuzzy_positives(two).sum()) == 1
    assert int(assign_fuzzy_positives(two, rule="n").sum()) == 2
    assert float(fuzzy_positive_loss(two, two, reduction="none", return_stats=True)[1]["mean_weight"]) == pytest.approx(
        0.124, abs=1e-3
    )
    flat = torch.zeros(1, 12)
    assert int(assign_fuzzy_positives(flat, threshold=0.95, variant="official").sum()) == 3
    assert int(assign_fuzzy_positives(flat, threshold=0.95, variant="official", k_cap=5).sum()) == 5
    assert int(assign_fuzzy_positives(torch.zeros(1, 3), threshold=0.99, variant="official").sum()) == 2


def test_gradient_is_equation_8() -> None:
    z = random_logits(2, 6, 3, 4, seed=1, dtype=torch.float64).requires_grad_()
    t = random_logits(2, 6, 3, 4, seed=2, scale=1.0, dtype=torch.float64).requires_grad_()
    members = assign_fuzzy_positives(t)
    assert members.sum(1).unique().numel() > 2
    loss = fuzzy_positive_loss(z, t, weight="none", reduction="none")
    (grad,) = torch.autograd.grad(loss.sum(), z, retain_graph=True)
    s = torch.sigmoid(
        torch.logsumexp((-z).masked_fill(~members, -torch.inf), 1)
        + torch.logsumexp(z.masked_fill(members, -torch.inf), 1)
    ).unsqueeze(1)
    lift = torch.softmax((-z).masked_fill(~members, -torch.inf), 1)
    push = torch.softmax(z.masked_fill(members, -torch.inf), 1)
    expected = s * (push - lift)
    torch.testing.assert_close(grad, expected, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(grad.abs().sum(1), 2 * s.squeeze(1), rtol=1e-10, atol=1e-12)
    assert grad.sum(1).abs().max() < 1e-12
    assert torch.autograd.grad(loss.sum(), t, allow_unused=True)[0] is None  # no gradient to the teacher
    leaf = z.detach().requires_grad_()
    for options in ({}, {"weight": "none"}, {"variant": "official"}, {"reduction": "none"}):
        assert torch.autograd.gradcheck(lambda x, o=options: fuzzy_positive_loss(x, t.detach(), **o), leaf)


@pytest.mark.parametrize("case", ["two classes", "confident", "fixed"])
def test_one_positive_is_cross_entropy(case: str) -> None:
    classes = 2 if case == "two classes" else 7
    z = random_logits(2, classes, 4, 5, seed=3, scale=4.0).requires_grad_()
    t = random_logits(2, classes, 4, 5, seed=4)
    if case == "confident":
        t = t + 12 * F.one_hot(t.argmax(1), classes).movedim(-1, 1)
    rule = 1 if case == "fixed" else "n-1"
    ce = F.cross_entropy(z, t.argmax(1), reduction="none")
    for kind in KINDS:
        weight = fuzzy_positive_weight(t, assign_fuzzy_positives(t, rule=rule), kind=kind)
        loss = fuzzy_positive_loss(z, t, weight=kind, rule=rule, reduction="none")
        torch.testing.assert_close(loss, weight * ce, rtol=1e-6, atol=2e-6)
        (grad,) = torch.autograd.grad(loss.sum(), z, retain_graph=True)
        (expected,) = torch.autograd.grad((weight * ce).sum(), z, retain_graph=True)
        torch.testing.assert_close(grad, expected, rtol=1e-5, atol=1e-6)


def test_classes_that_the_student_cannot_give() -> None:
    z = random_logits(4, 6, seed=35)
    t = random_logits(4, 6, seed=36, scale=1.0)
    members = assign_fuzzy_positives(t)
    outside = t.masked_fill(members, -torch.inf).argmax(1, keepdim=True)
    z = z.scatter(1, outside, -torch.inf)[members.sum(1) < 5].requires_grad_()
    assert len(z)
    loss = fuzzy_positive_loss(z, t[members.sum(1) < 5])
    assert loss.isfinite()
    assert torch.autograd.grad(loss, z)[0].isfinite().all()


def test_shift_invariant_class_equivariant_and_the_value_at_zero() -> None:
    z, t = random_logits(2, 6, 3, 3, seed=5), random_logits(2, 6, 3, 3, seed=6, scale=0.7)
    loss = fuzzy_positive_loss(z, t, reduction="none")
    torch.testing.assert_close(fuzzy_positive_loss(z + 7.5, t - 3.0, reduction="none"), loss, rtol=1e-5, atol=1e-5)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(fuzzy_positive_loss(z[:, order], t[:, order], reduction="none"), loss)
    k = assign_fuzzy_positives(t).sum(1)
    flat = fuzzy_positive_loss(torch.zeros_like(z), t, weight="none", reduction="none")
    torch.testing.assert_close(flat, torch.log(1 + k * (6 - k)), rtol=1e-6, atol=1e-6)
    steep = fuzzy_positive_loss(torch.tensor([[-60.0, 60.0, 0.0]]), torch.tensor([[9.0, 0.0, 0.0]]), weight="none")
    assert float(steep) == pytest.approx(120.0)


def test_reference_weights() -> None:
    for p, paper, official in (((0.5, 0.4, 0.1), 0.5499, 0.3968), ((0.6, 0.2, 0.1, 0.1), 0.9107, 0.8649)):
        t = torch.tensor([p]).log()
        members = assign_fuzzy_positives(t, threshold=0.85)
        assert float(fuzzy_positive_weight(t, members)) == pytest.approx(paper, abs=1e-4)
        assert float(fuzzy_positive_weight(t, members, variant="official")) == pytest.approx(official, abs=1e-4)
    tie = torch.tensor([[0.0, 0.0]])
    for kind in KINDS[:-1]:
        assert float(fuzzy_positive_weight(tie, assign_fuzzy_positives(tie), kind=kind)) == 0


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("concave", (1, 0.9297, 0.8387, 0.7097, 0.4856, 0)),
        ("linear", (1, 0.7895, 0.5789, 0.3684, 0.1579, 0)),
        ("convex", (1, 0.4286, 0.2157, 0.1045, 0.0361, 0)),
        ("convex1", (1, 0.6522, 0.4074, 0.2258, 0.0857, 0)),
        ("none", (1, 1, 1, 1, 1, 1)),
    ],
)
def test_weight_curve_of_figure_4b(kind: str, expected: tuple[float, ...]) -> None:
    q = torch.tensor([0, 0.1, 0.2, 0.3, 0.4, 0.475])
    result = weight_curve(torch.full_like(q, 0.475), q, kind=kind)
    assert result.tolist() == pytest.approx(expected, abs=1e-4)


def test_official_weight_in_closed_form() -> None:
    t = random_logits(500, 8, scale=1.0, dtype=torch.float64)
    members = assign_fuzzy_positives(t, variant="official")
    p, k = t.softmax(1), members.sum(1)
    m = (p * members).sum(1) / k
    q = p.masked_fill(members, 0).amax(1)
    expected = torch.log1p(50 * k / (k + 1) * (m - q)) / torch.log1p(50 * (k * m + q) / (k + 1))
    result = fuzzy_positive_weight(t, members, variant="official")
    torch.testing.assert_close(result, expected)
    assert (result <= fuzzy_positive_weight(t, members) + 1e-12).all()
