"""Losses on labelled pixels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fuzzyseg.losses import SupervisedLoss, cross_entropy_map, dice_loss, ohem_keep


def sample(void: float = 0.2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(2, 4, 6, 7, generator=generator)
    mask = torch.randint(0, 4, (2, 6, 7), generator=generator)
    return logits, torch.where(torch.rand(2, 6, 7, generator=generator) < void, 255, mask)


def test_void_pixels_do_not_count() -> None:
    logits, mask = sample()
    logits.requires_grad_()
    loss = SupervisedLoss()(logits, mask)
    known = mask != 255
    torch.testing.assert_close(loss, F.cross_entropy(logits.movedim(1, -1)[known], mask[known]))
    grad = torch.autograd.grad(loss, logits)[0].movedim(1, -1)
    assert (grad[~known] == 0).all()
    assert (grad[known].abs().sum(-1) > 0).all()
    assert (cross_entropy_map(logits, mask)[~known] == 0).all()


@pytest.mark.parametrize("options", [{}, {"name": "ohem"}, {"class_weights": [1, 2, 0, 3]}, {"dice": 1.0}])
def test_a_batch_of_void_gives_zero_with_a_graph(options: dict[str, object]) -> None:
    logits = sample()[0].requires_grad_()
    loss = SupervisedLoss(**options)(logits, torch.full((2, 6, 7), 255))
    assert loss.item() == 0
    assert (torch.autograd.grad(loss, logits)[0] == 0).all()


def test_options_equal_torch() -> None:
    logits, mask = sample()
    weights = [0.5, 2.0, 1.0, 3.0]
    result = SupervisedLoss(class_weights=weights)(logits, mask)
    torch.testing.assert_close(result, F.cross_entropy(logits, mask, torch.tensor(weights), ignore_index=255))
    smooth = SupervisedLoss(label_smoothing=0.1)(logits, mask)
    torch.testing.assert_close(smooth, F.cross_entropy(logits, mask, ignore_index=255, label_smoothing=0.1))
    assert SupervisedLoss(class_weights=weights).state_dict() == {}  # the weights are configuration, not state


def test_logits_at_stride_are_up_sampled_and_half_precision_is_not_used() -> None:
    logits, mask = sample()
    full = F.interpolate(logits, size=(24, 21), mode="bilinear", align_corners=True)
    large = mask.repeat_interleave(4, 1).repeat_interleave(3, 2)
    torch.testing.assert_close(SupervisedLoss()(logits, large), SupervisedLoss()(full, large))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = SupervisedLoss(dice=1.0)(logits.bfloat16(), large)
    assert torch.equal(low, SupervisedLoss(dice=1.0)(logits.bfloat16().float(), large))


def literal_ohem(logits: Tensor, mask: Tensor, threshold: float, min_kept: int) -> Tensor:
    p = logits.softmax(1)
    q = torch.ones(mask.shape)
    for b, y, x in (mask != 255).nonzero().tolist():
        q[b, y, x] = p[b, mask[b, y, x], y, x]
    if min_kept > int((mask != 255).sum()):
        return mask != 255
    limit = max(threshold, sorted(q.flatten().tolist())[min(q.numel(), min_kept) - 1])
    return (mask != 255) & (q <= limit)


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("min_kept", [1, 20, 60, 70, 10_000])
def test_ohem_equals_a_literal_loop(threshold: float, min_kept: int) -> None:
    logits, mask = sample()
    keep = ohem_keep(logits, mask, threshold=threshold, min_kept=min_kept)
    assert torch.equal(keep, literal_ohem(logits, mask, threshold, min_kept))


def test_ohem_keeps_the_hardest() -> None:
    logits, mask = sample()
    ce = cross_entropy_map(logits, mask)
    keep = ohem_keep(logits, mask, threshold=0.0, min_kept=15)
    assert int(keep.sum()) == 15
    assert ce[keep].min() > ce[~keep].max()
    loss = SupervisedLoss("ohem", ohem_threshold=0.0, ohem_min_kept=15)  # per image: 30 for the two
    torch.testing.assert_close(loss(logits, mask), ce.flatten().topk(30).values.mean())
    every = SupervisedLoss("ohem", ohem_threshold=0.0, ohem_min_kept=1000)(logits, mask)
    torch.testing.assert_close(every, SupervisedLoss()(logits, mask))


def test_ohem_selection_has_no_gradient() -> None:
    logits, mask = sample()
    logits.requires_grad_()
    loss = SupervisedLoss("ohem", ohem_threshold=0.0, ohem_min_kept=5)
    keep = ohem_keep(logits, mask, threshold=0.0, min_kept=10)
    grad = torch.autograd.grad(loss(logits, mask), logits)[0].movedim(1, -1)
    assert (grad[~keep] == 0).all()
    assert (grad[keep].abs().sum(-1) > 0).all()
    moved = logits.detach() + 1e-4 * torch.randn(logits.shape) * (~keep).unsqueeze(1)
    assert torch.equal(loss(moved, mask), loss(logits, mask))


def test_ohem_lets_a_nan_through() -> None:
    logits, mask = sample(void=0.0)
    logits[1, 2, 3, 3] = torch.nan
    assert SupervisedLoss("ohem", ohem_threshold=0.0, ohem_min_kept=5)(logits, mask).isnan()
    assert SupervisedLoss()(logits, mask).isnan()


def test_dice_equals_a_loop_over_classes() -> None:
    logits, mask = sample()
    mask[mask == 2] = 255  # an absent class does not count
    known = mask != 255
    p = logits.softmax(1)
    per_class = []
    for c in (0, 1, 3):
        y = (mask == c).float()
        both, total = (p[:, c] * y).sum(), (p[:, c] * known).sum() + y.sum()
        per_class.append(1 - (2 * both + 1) / (total + 1))
    torch.testing.assert_close(dice_loss(logits, mask), torch.stack(per_class).mean())
    added = SupervisedLoss(dice=0.5)(logits, mask) - SupervisedLoss()(logits, mask)
    torch.testing.assert_close(added, 0.5 * dice_loss(logits, mask))
    right = 50 * F.one_hot(torch.where(known, mask, 0), 4).movedim(-1, 1).float()
    assert float(dice_loss(right, mask)) < 0.01
    leaf = logits.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: dice_loss(x, mask), leaf)


def test_wrong_shapes() -> None:
    logits, mask = sample()
    with pytest.raises(ValueError, match="class_weights: found 3 for 4 classes"):
        SupervisedLoss(class_weights=[1, 1, 1])(logits, mask)
    with pytest.raises(ValueError, match=r"mask \(6, 7\)"):
        SupervisedLoss()(logits, mask[0])
