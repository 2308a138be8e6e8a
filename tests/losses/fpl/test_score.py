"""The positive gradient score against autograd."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from fuzzyseg import assign_fuzzy_positives, fuzzy_membership, fuzzy_positive_loss, positive_gradient_score


def test_score_is_the_ratio_of_gradients() -> None:
    generator = torch.Generator().manual_seed(4)
    z = torch.randn(3, 6, 4, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    t = torch.randn(3, 6, 4, 4, generator=generator, dtype=torch.float64)
    target = torch.randint(0, 6, (3, 4, 4), generator=generator)
    target[0, 0] = 255
    members = assign_fuzzy_positives(t)
    top = F.one_hot(t.argmax(1), 6).movedim(-1, 1).bool()
    known = target != 255
    g = torch.where(known, target, 0).unsqueeze(1)
    for y, loss in (
        (members, fuzzy_positive_loss(z, t, weight="none", reduction="none")),
        (top, F.cross_entropy(z, t.argmax(1), reduction="none")),
    ):
        (grad,) = torch.autograd.grad(loss.sum(), z)
        expected = grad.gather(1, g).squeeze(1) / torch.where(y, grad, 0).sum(1)
        score = positive_gradient_score(z, y, target)
        torch.testing.assert_close(score[known], expected[known])
        assert score[~known].isnan().all()
        assert not score.requires_grad
    other = torch.where(known, target, -1)
    assert positive_gradient_score(z, members, other, ignore_index=-1).isnan().equal(~known)


def test_score_of_the_continuous_form() -> None:
    generator = torch.Generator().manual_seed(5)
    z = torch.randn(3, 6, 4, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    t = torch.randn(3, 6, 4, 4, generator=generator, dtype=torch.float64)
    target = torch.randint(0, 6, (3, 4, 4), generator=generator)
    mu = fuzzy_membership(t)
    (grad,) = torch.autograd.grad(
        fuzzy_positive_loss(z, t, rule="continuous", weight="none", reduction="none").sum(), z
    )
    expected = grad.gather(1, target.unsqueeze(1)).squeeze(1) / grad.clamp(max=0).sum(1)
    score = positive_gradient_score(z, mu, target)
    torch.testing.assert_close(score, expected)
    torch.testing.assert_close(  # without a fractional class it is that of the set
        positive_gradient_score(z, (mu == 1).double(), target), positive_gradient_score(z, mu == 1, target)
    )
    far = positive_gradient_score(z.detach().float() * 1e4, mu.float(), target)
    assert far.isfinite().all()
    assert (far.abs() <= 1 + 1e-6).all()
