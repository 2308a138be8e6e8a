"""Roles of cells in the contrast against a loop over cells and classes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fuzzyseg.methods.u2pl.contrast import Parts, contrast_parts, entropy_of, mean_of_classes


def literal(p, label, entropy, share, ranks, confidence):
    """The rule, one cell and one class at a time."""
    count, classes = p.shape
    first = count - len(entropy)
    known = [float(h) for h, y in zip(entropy, label[first:], strict=True) if y != 255]
    low, high = float(np.quantile(known, share)), float(np.quantile(known, 1 - share))
    parts = torch.zeros(3, count, classes, dtype=torch.bool)
    for n in range(count):
        if label[n] == 255:
            continue
        own = int(label[n])
        sure = n < first or float(entropy[n - first]) <= low + 1e-9
        unsure = n < first or float(entropy[n - first]) >= high - 1e-9
        order = sorted(range(classes), key=lambda c: -float(p[n, c]))
        for c in range(classes):
            rank = order.index(c)
            parts[0, n, c] = sure and own == c
            parts[1, n, c] = sure and own == c and float(p[n, c]) > confidence
            if n < first:
                parts[2, n, c] = unsure and own != c and rank < ranks[0]
            else:
                parts[2, n, c] = unsure and ranks[0] <= rank < ranks[1]
    return parts


@pytest.mark.parametrize(("classes", "ranks"), [(6, (3, 20)), (6, (2, 4)), (25, (3, 20))])
@pytest.mark.parametrize("share", [0.2, 0.05, 0.0])
def test_parts_are_those_of_the_rule(classes, ranks, share):
    generator = torch.Generator().manual_seed(classes)
    p = torch.softmax(2 * torch.randn(240, classes, generator=generator), 1)
    label = torch.randint(0, classes, (240,), generator=generator)
    label[torch.rand(240, generator=generator) < 0.2] = 255
    entropy = torch.rand(140, generator=generator)
    result = contrast_parts(p, label, entropy, share=share, ranks=ranks, confidence=0.3)
    for ours, theirs in zip(result, literal(p, label, entropy, share, ranks, 0.3), strict=True):
        assert torch.equal(ours, theirs)
        assert share == 0 or ours.any()


def test_a_key_is_never_of_its_own_class_and_unlabelled_keys_lie_outside_the_top():
    generator = torch.Generator().manual_seed(0)
    p = torch.softmax(torch.randn(200, 4, generator=generator), 1)
    label = torch.randint(0, 4, (200,), generator=generator)
    parts = contrast_parts(p, label, torch.rand(120, generator=generator), share=0.2, ranks=(3, 20), confidence=0.3)
    labelled, unlabelled = parts.key[:80], parts.key[80:]
    assert labelled.any()
    assert not labelled.gather(1, label[:80, None]).any()
    last = p[80:].argmin(1, keepdim=True)
    assert torch.equal(unlabelled.sum(), unlabelled.gather(1, last).sum())
    assert unlabelled.sum() == 24


def test_a_class_that_ranks_high_everywhere_gets_no_key_of_unlabelled_cells():
    p = torch.softmax(torch.randn(50, 6), 1)
    p[:, 2] = 1.0
    parts = contrast_parts(p, torch.full((50,), 2), torch.rand(50), share=0.5, ranks=(3, 20), confidence=0.3)
    assert not parts.key[:, 2].any()
    assert parts.key.any()


@pytest.mark.parametrize("classes", [2, 3])
def test_few_classes_still_give_negatives(classes):
    p = torch.softmax(torch.randn(80, classes), 1)
    label = p.argmax(1)
    parts = contrast_parts(p, label, torch.rand(40), share=0.2, ranks=(3, 20), confidence=0.0)
    keys = parts.key[40:]
    assert keys.any()
    assert not keys.gather(1, p[40:].argmax(1, keepdim=True)).any()
    assert torch.equal(keys.sum(1) > 0, keys.gather(1, p[40:].argmin(1, keepdim=True)).squeeze(1))


def test_nothing_known_gives_nothing():
    parts = contrast_parts(
        torch.rand(8, 5), torch.full((8,), 255), torch.rand(4), share=0.2, ranks=(3, 20), confidence=0.3
    )
    assert not torch.stack(parts).any()


def test_ranks_the_wrong_way_round_are_refused():
    with pytest.raises(ValueError, match=r"ranks: found \(5, 3\)"):
        contrast_parts(torch.rand(4, 9), torch.zeros(4), torch.rand(2), share=0.2, ranks=(5, 3), confidence=0.3)


def test_entropy_is_minus_p_log_p():
    logits = torch.tensor([[1.0, -2.0], [0.5, 0.5], [300.0, -300.0]]).view(3, 2, 1, 1)
    p = torch.softmax(logits[:2, :, 0, 0].double(), 1)
    result = entropy_of(logits, (2, 3))
    assert result.shape == (3, 2, 3)
    torch.testing.assert_close(result[:2, 1, 1].double(), -(p * p.log()).sum(1), atol=1e-6, rtol=0)
    assert (result[2] == 0).all()


def test_the_mean_is_over_the_classes_that_are_present():
    loss = torch.tensor([[1.0, 3.0], [5.0, 5.0], [7.0, 7.0], [9.0, 9.0]])

    def parts(present, anchor):
        return Parts(torch.tensor([present]), torch.tensor([anchor]), torch.zeros(1, 4, dtype=torch.bool))

    some = parts([True, True, True, False], [True, False, True, False])
    assert mean_of_classes(loss, some, torch.tensor([1, 1, 1, 1])) == (2 + 7) / 3
    assert mean_of_classes(loss, some, torch.tensor([1, 1, 0, 1])) == 2 / 3  # an empty bank
    one = parts([True, False, False, False], [True, False, False, False])
    assert mean_of_classes(loss, one, torch.tensor([1, 1, 1, 1])) == 0
    none = parts([False] * 4, [False] * 4)
    assert mean_of_classes(loss, none, torch.tensor([0, 0, 0, 0])) == 0
