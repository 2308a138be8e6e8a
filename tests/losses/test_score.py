"""The positive gradient score against autograd."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from fuzzyseg import assign_fuzzy_positives, fuzzy_positive_loss, positive_gradient_score


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
