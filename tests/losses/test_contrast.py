"""InfoNCE against a literal loop over anchors and negatives."""

from __future__ import annotations

import math

import pytest
import torch

from fuzzyseg.losses.contrast import info_nce, unit


def literal(anchors, positives, negatives, temperature, counts):
    """The formula by a loop over anchors and negatives. counts(n, r): whether row r counts for anchor n."""
    losses = []
    for n, anchor in enumerate(anchors):
        positive = torch.exp(anchor @ positives[n] / temperature)
        total = positive
        for r, negative in enumerate(negatives):
            total = total + counts(n, r) * torch.exp(anchor @ negative / temperature)
        losses.append(-torch.log(positive / total))
    return torch.stack(losses)


def features(count, width=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return unit(torch.randn(count, width, generator=generator, dtype=torch.float64))


ANCHORS, POSITIVES, NEGATIVES = features(7, seed=1), features(7, seed=2), features(11, seed=3)
GENERATOR = torch.Generator().manual_seed(5)
INDEX = torch.randint(0, 11, (7, 4), generator=GENERATOR)
KEPT = torch.rand(11, generator=GENERATOR) > 0.3
LABELS = torch.randint(0, 3, (7,), generator=GENERATOR), torch.randint(0, 3, (11,), generator=GENERATOR)
SETS = torch.rand(7, 4, generator=GENERATOR) > 0.6, torch.rand(11, 4, generator=GENERATOR) > 0.6


@pytest.mark.parametrize("chunk", [1, 11, 30, 100, 2**24])
@pytest.mark.parametrize(
    ("by_index", "kept", "classes"),
    [(True, None, None), *((False, kept, classes) for kept in (None, KEPT) for classes in (None, LABELS, SETS))],
)
def test_equals_a_literal_loop_in_value_and_gradient_for_any_chunk(chunk, by_index, kept, classes):
    ours, theirs, rows = (t.clone().requires_grad_() for t in (ANCHORS, POSITIVES, NEGATIVES))
    result = info_nce(
        ours,
        theirs,
        rows,
        temperature=0.2,
        index=INDEX if by_index else None,
        kept=kept,
        classes=classes,
        chunk=chunk,
    )

    def counts(n, r):
        times = int((INDEX[n] == r).sum()) if by_index else 1
        allowed = kept is None or bool(kept[r])
        if classes is LABELS:
            allowed = allowed and int(LABELS[0][n]) != int(LABELS[1][r])
        if classes is SETS:
            allowed = allowed and not bool((SETS[0][n] & SETS[1][r]).any())
        return times * allowed

    copies = [t.clone().requires_grad_() for t in (ANCHORS, POSITIVES, NEGATIVES)]
    expected = literal(*copies, 0.2, counts)
    torch.testing.assert_close(result, expected)
    scale = torch.arange(1.0, 8.0, dtype=torch.float64)
    (result * scale).sum().backward()
    (expected * scale).sum().backward()
    for a, b in zip((ours, theirs, rows), copies, strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_values_that_can_be_worked_out():
    axes = torch.eye(51)
    anchor = axes[:1]
    # 50 orthogonal negatives at t = .5: log(1 + 50 e^-2)
    loss = info_nce(anchor, anchor, axes[1:], temperature=0.5)
    assert loss.item() == pytest.approx(math.log(1 + 50 * math.exp(-2)), abs=1e-6)
    # negatives equal to anchor and positive: log(1 + N)
    assert info_nce(anchor, anchor, anchor.expand(200, -1), temperature=0.07).item() == pytest.approx(math.log(201))
    # all rows have the anchor's class: only the positive counts
    same = torch.zeros(50, dtype=torch.long)
    loss = info_nce(anchor, anchor, axes[1:], temperature=0.1, classes=(same[:1], same))
    assert loss.item() == 0
    # one negative as similar as the positive: log 2
    other = torch.tensor([0, 1])
    near = anchor.expand(2, -1)
    loss = info_nce(anchor, anchor, near, temperature=0.1, classes=(same[:1], other))
    assert loss.item() == pytest.approx(math.log(2))


def test_hard_anchors_keep_their_gradient():
    """With an epsilon in the logarithm it would vanish if negatives are more similar than the positive."""
    anchor = torch.tensor([[1.0, 0.0, 0.0]], requires_grad=True)
    positive = torch.tensor([[-0.5, math.sqrt(0.75), 0.0]])
    negatives = torch.tensor([[0.9, 0.0, math.sqrt(0.19)]]).expand(70_000, -1)
    loss = info_nce(anchor, positive, negatives, temperature=0.1)
    assert loss.item() == pytest.approx(14 + math.log(70_000), rel=1e-4)
    loss.backward()
    # -(p - n) / t, by the probability of the negatives, which is 1 here
    torch.testing.assert_close(anchor.grad, (negatives[:1] - positive) / 0.1, rtol=1e-3, atol=1e-3)


def test_no_negatives_and_no_anchors():
    anchors = ANCHORS.clone().requires_grad_()
    none = info_nce(anchors, POSITIVES, NEGATIVES[:0], temperature=0.1)
    assert torch.equal(none, torch.zeros(7, dtype=torch.float64))
    none.sum().backward()
    assert not anchors.grad.any()
    assert info_nce(ANCHORS[:0], POSITIVES[:0], NEGATIVES, temperature=0.1).shape == (0,)


@pytest.mark.parametrize("chunk", [20, 2**24])
def test_half_precision_and_autocast_are_computed_in_fp32(chunk):
    ours, theirs, rows = (t.to(torch.bfloat16) for t in (ANCHORS, POSITIVES, NEGATIVES))
    expected = info_nce(ours.float(), theirs.float(), rows.float(), temperature=0.05)
    with torch.autocast("cpu", torch.bfloat16):
        result = info_nce(ours, theirs, rows, temperature=0.05, chunk=chunk)
        long = unit(ours)
    assert result.dtype == long.dtype == torch.float32
    assert torch.equal(result, expected)


def test_unit_is_of_length_one_and_stays_zero():
    values = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    assert torch.equal(unit(values), torch.tensor([[0.6, 0.8], [0.0, 0.0]]))
    assert torch.equal(unit(7 * values), unit(values))
    assert torch.equal(unit(values.view(1, 2, 2), 2), unit(values).view(1, 2, 2))


@pytest.mark.parametrize("change", [{"positives": POSITIVES[:1]}, {"index": INDEX, "kept": KEPT}])
def test_what_would_be_broadcast_or_ignored_is_refused(change):
    given = {"anchors": ANCHORS, "positives": POSITIVES, "negatives": NEGATIVES, "temperature": 0.1}
    with pytest.raises(AssertionError):
        info_nce(**given | change)
