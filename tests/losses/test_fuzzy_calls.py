"""Arguments of the loss: masks, thresholds, sizes, mixed logits, precision, balance, statistics, and errors."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fuzzyseg import (
    FuzzyPositiveLoss,
    Mixed,
    assign_fuzzy_positives,
    fuzzy_positive_loss,
    fuzzy_positive_weight,
    positive_gradient_score,
)
from fuzzyseg.losses import PIXEL_LOSSES, SupervisedLoss


def random_logits(*shape: int, seed: int = 0, scale: float = 2.0, dtype: torch.dtype = torch.float32) -> Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("shape", [(5, 6), (2, 6, 3, 4), (2, 6, 2, 3, 4)])
@pytest.mark.parametrize("options", [{}, {"balance": True}, {"variant": "official"}])
def test_any_number_of_axes_gives_the_same_pixels(shape: tuple[int, ...], options: dict[str, object]) -> None:
    z, t = random_logits(*shape, seed=7), random_logits(*shape, seed=8, scale=0.8)
    rows = [side.movedim(1, -1).reshape(-1, 6) for side in (z, t)]
    maps = fuzzy_positive_loss(z, t, reduction="none", **options)
    assert maps.shape == (shape[0], *shape[2:])
    torch.testing.assert_close(maps.flatten(), fuzzy_positive_loss(*rows, reduction="none", **options))
    torch.testing.assert_close(fuzzy_positive_loss(z, t, **options), maps.mean())


def test_mean_divides_by_the_sum_of_valid() -> None:
    z, t = random_logits(2, 5, 3, 4, seed=9).requires_grad_(), random_logits(2, 5, 3, 4, seed=10)
    loss = fuzzy_positive_loss(z, t, reduction="none")
    valid = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(0)) > 0.4
    weights = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(1)) * valid * 0.01
    torch.testing.assert_close(fuzzy_positive_loss(z, t, valid=valid), loss[valid].mean())
    torch.testing.assert_close(fuzzy_positive_loss(z, t, valid=weights), (loss * weights).sum() / weights.sum())
    torch.testing.assert_close(fuzzy_positive_loss(z, t, valid=weights, reduction="none"), loss * (weights > 0))
    nothing = fuzzy_positive_loss(z, t, valid=torch.zeros(2, 3, 4, dtype=torch.bool))
    assert nothing.item() == 0
    assert (torch.autograd.grad(nothing, z)[0] == 0).all()


def test_threshold_may_be_a_tensor() -> None:
    z, t = random_logits(2, 6, 3, 4, seed=11), random_logits(2, 6, 3, 4, seed=12, scale=0.8)
    per_pixel = torch.tensor([0.5, 0.9, 1.0])[torch.arange(24) % 3].view(2, 3, 4)
    result = assign_fuzzy_positives(t, threshold=per_pixel)
    for value in (0.5, 0.9, 1.0):
        where = (per_pixel == value).unsqueeze(1).expand_as(result)
        assert torch.equal(result[where], assign_fuzzy_positives(t, threshold=value)[where])
    whole = fuzzy_positive_loss(z, t, threshold=torch.tensor(0.75))
    assert torch.equal(whole, fuzzy_positive_loss(z, t, threshold=0.75))
    assert torch.equal(fuzzy_positive_loss(z, t, threshold=torch.full((2, 3, 4), 0.75, dtype=torch.float64)), whole)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(
    ("shape", "size", "mode"), [((2, 5, 4, 6), (8, 13), "bilinear"), ((1, 5, 2, 3, 4), (4, 6, 7), "trilinear")]
)
def test_size_up_samples_both_sides(
    shape: tuple[int, ...], size: tuple[int, ...], mode: str, align_corners: bool
) -> None:
    z, t = random_logits(*shape, seed=13), random_logits(*shape, seed=14)
    full = [F.interpolate(side, size=size, mode=mode, align_corners=align_corners) for side in (z, t)]
    result = fuzzy_positive_loss(z, t, size=size, align_corners=align_corners, reduction="none")
    torch.testing.assert_close(result, fuzzy_positive_loss(*full, reduction="none"))
    assert result.shape == (shape[0], *size)
    torch.testing.assert_close(  # one side may have the size already
        fuzzy_positive_loss(full[0], t, size=size, align_corners=align_corners, reduction="none"), result
    )


def test_mixed_resizes_the_logits_and_then_mixes_them() -> None:
    z, a, b = (random_logits(2, 5, 4, 4, seed=seed) for seed in (15, 16, 17))
    mask = torch.zeros(2, 8, 8, dtype=torch.bool)
    mask[0, 1:6, 2:7] = True
    mask[1, :, 3:] = True
    z8, a8, b8 = (F.interpolate(x, size=(8, 8), mode="bilinear") for x in (z, a, b))
    expected = fuzzy_positive_loss(z8, torch.where(mask[:, None], b8, a8), reduction="none")
    torch.testing.assert_close(fuzzy_positive_loss(z, Mixed(a, b, mask), size=(8, 8), reduction="none"), expected)
    torch.testing.assert_close(fuzzy_positive_loss(z8, Mixed(a8, b8, mask), reduction="none"), expected)
    volume = [random_logits(1, 3, 2, 3, 4, seed=seed) for seed in (18, 19, 20)]
    inside = torch.arange(24).view(1, 2, 3, 4) % 2 == 0
    torch.testing.assert_close(
        fuzzy_positive_loss(volume[0], Mixed(volume[1], volume[2], inside)),
        fuzzy_positive_loss(volume[0], torch.where(inside[:, None], volume[2], volume[1])),
    )
    rows = [side.flatten(2)[0].t() for side in volume]  # (N,C)
    torch.testing.assert_close(
        fuzzy_positive_loss(rows[0], Mixed(rows[1], rows[2], inside.flatten()), reduction="none"),
        fuzzy_positive_loss(volume[0], Mixed(volume[1], volume[2], inside), reduction="none").flatten(),
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_fp32(dtype: torch.dtype) -> None:
    z = random_logits(2, 5, 4, 4, seed=21, scale=8).to(dtype).requires_grad_()
    t = random_logits(2, 5, 4, 4, seed=22).to(dtype)
    loss = fuzzy_positive_loss(z, t, size=(7, 7))
    assert loss.dtype == torch.float32
    assert torch.equal(loss, fuzzy_positive_loss(z.float(), t.float(), size=(7, 7)))
    assert torch.autograd.grad(loss, z)[0].dtype == dtype
    assert fuzzy_positive_loss(z.double(), t.double()).dtype == torch.float64


def test_autocast_changes_nothing() -> None:
    z, t = random_logits(2, 5, 4, 4, seed=23, scale=8), random_logits(2, 5, 4, 4, seed=24)
    plain = fuzzy_positive_loss(z, t, size=(7, 7), balance=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(fuzzy_positive_loss(z, t, size=(7, 7), balance=True), plain)
        assert torch.equal(assign_fuzzy_positives(t.bfloat16()), assign_fuzzy_positives(t.bfloat16().float()))


@pytest.mark.parametrize("side", ["student", "teacher"])
@pytest.mark.parametrize("options", [{}, {"weight": "none"}, {"balance": True}, {"rule": 1, "weight": "none"}])
def test_a_nan_gives_a_nan(side: str, options: dict[str, object]) -> None:
    for channel in range(5):
        z, t = random_logits(2, 5, 3, 3, seed=25), random_logits(2, 5, 3, 3, seed=26)
        (z if side == "student" else t)[1, channel, 2, 0] = torch.nan
        loss = fuzzy_positive_loss(z, t, reduction="none", **options)
        assert loss[1, 2, 0].isnan()
        assert fuzzy_positive_loss(z, t, **options).isnan()
        valid = torch.ones(2, 3, 3, dtype=torch.bool)
        valid[1, 2, 0] = False  # a NaN there would reach the gradient, so it must show in the loss
        assert fuzzy_positive_loss(z, t, valid=valid, **options).isnan()


def test_balance_gives_the_value_of_cross_entropy_and_keeps_the_direction() -> None:
    z = random_logits(2, 6, 4, 4, seed=27).requires_grad_()
    t = random_logits(2, 6, 4, 4, seed=28, scale=0.8)
    valid = torch.rand(2, 4, 4, generator=torch.Generator().manual_seed(2)) > 0.3
    plain = fuzzy_positive_loss(z, t, valid=valid)
    scaled, stats = fuzzy_positive_loss(z, t, valid=valid, balance=True, return_stats=True)
    hard = F.cross_entropy(z, t.argmax(1), reduction="none")[valid].mean()
    torch.testing.assert_close(scaled, hard)
    torch.testing.assert_close(stats["balance"], (hard / plain).detach())
    grads = [torch.autograd.grad(loss, z)[0] for loss in (plain, scaled)]
    torch.testing.assert_close(grads[1], grads[0] * stats["balance"])
    flat = torch.zeros(1, 2, 2, 2)  # every weight is 0
    zero = fuzzy_positive_loss(z[:1, :2, :2, :2], flat, balance=True)
    assert zero.item() == 0
    assert torch.autograd.grad(zero, z)[0].isfinite().all()


def test_statistics_are_those_of_the_valid_pixels() -> None:
    z, t = random_logits(2, 6, 4, 4, seed=29), random_logits(2, 6, 4, 4, seed=30, scale=0.8)
    valid = torch.rand(2, 4, 4, generator=torch.Generator().manual_seed(3)) > 0.5
    loss, stats = fuzzy_positive_loss(z.requires_grad_(), t, valid=valid, return_stats=True)
    assert loss.requires_grad
    assert not any(value.requires_grad for value in stats.values())
    members = assign_fuzzy_positives(t)
    k = members.sum(1)[valid]
    torch.testing.assert_close(stats["k_histogram"], torch.bincount(k - 1, minlength=5) / len(k))
    top = t.softmax(1).max(1)
    labels = torch.bincount(top.indices[valid], minlength=6) / len(k)
    torch.testing.assert_close(stats["label_histogram"], labels)
    torch.testing.assert_close(stats["mean_confidence"], top.values[valid].mean())
    torch.testing.assert_close(stats["mean_weight"], fuzzy_positive_weight(t, members)[valid].mean())


def test_module_is_the_function() -> None:
    z, t = random_logits(2, 5, 4, 4, seed=31), random_logits(2, 5, 4, 4, seed=32)
    options = {"threshold": 0.75, "weight": "linear", "rule": "n", "variant": "official", "balance": True}
    module = FuzzyPositiveLoss(**options, size=(8, 8), align_corners=True)
    valid = torch.rand(2, 8, 8) > 0.5
    expected = fuzzy_positive_loss(z, t, valid=valid, size=(8, 8), align_corners=True, **options)
    assert torch.equal(module(z, t, valid), expected)
    assert module(z, t, size=(5, 5)).isfinite()
    assert all(word in repr(module) for word in ("0.75", "linear", "official", "(8, 8)"))
    held = FuzzyPositiveLoss(threshold=torch.tensor(0.75))
    assert "threshold" in held.state_dict()
    assert torch.equal(held(z, t), fuzzy_positive_loss(z, t, threshold=0.75))


def test_nothing_looks_at_a_value() -> None:
    """Tensors on the device `meta` have no values, so that code that runs on them does not synchronise with a GPU."""
    z = torch.zeros(2, 5, 4, 4, device="meta", requires_grad=True)
    valid = torch.zeros(2, 8, 8, device="meta")
    threshold = torch.zeros(2, 8, 8, device="meta")
    mixed = Mixed(z, z, valid > 0)
    for options in ({}, {"variant": "official", "balance": True}, {"rule": "n"}, {"threshold": threshold}):
        loss, stats = fuzzy_positive_loss(z, mixed, valid=valid, size=(8, 8), return_stats=True, **options)
        loss.backward()
        assert stats["k_histogram"].shape == (4,)
    for call in PIXEL_LOSSES.values():
        call(z, mixed, size=(8, 8), valid=valid, threshold=threshold, maps=True)
    positive_gradient_score(z, assign_fuzzy_positives(z), valid[:, :4, :4])
    SupervisedLoss("ohem", dice=1.0, class_weights=[1.0] * 5).to("meta")(z, valid.long())


Z = torch.zeros(2, 4, 3, 3)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((Z, Z), {"threshold": 0.0}, r"threshold: found 0.0.*\(0, 1\]"),
        ((Z, Z), {"threshold": 1.5}, "threshold: found 1.5"),
        ((Z, Z), {"threshold": float("nan")}, "threshold: found nan"),
        ((Z, Z), {"threshold": torch.ones(2, 3)}, r"threshold: found shape \(2, 3\), expected \(2, 3, 3\)"),
        ((Z, Z), {"weight": "concav"}, "found 'concav', expected one of concave, linear, convex, convex1, none"),
        ((Z, Z), {"rule": "n+1"}, r"rule: found 'n\+1'"),
        ((Z, Z), {"rule": 4}, "found K = 4 for 4 classes"),
        ((Z, Z), {"k_cap": 0}, "k_cap: found 0"),
        ((Z, Z), {"variant": "code"}, "variant: found 'code'"),
        ((Z, Z), {"reduction": "sum"}, "reduction: found 'sum'"),
        ((Z, Z), {"valid": torch.ones(2, 3)}, r"valid: found shape \(2, 3\)"),
        ((Z, Z), {"size": (6,)}, r"size: found \(6,\).*one entry per spatial axis"),
        ((Z, Z), {"size": (6, 6), "valid": torch.ones(2, 3, 3)}, r"expected \(2, 6, 6\)"),
        ((Z, Z[:, :3]), {}, r"teacher_logits: found shape \(2, 3, 3, 3\)"),
        ((Z, Z[..., :2]), {}, "give size="),
        ((Z, Z.to("meta")), {}, "teacher_logits is on meta"),
        ((Z[:, :1], Z[:, :1]), {}, "at least 2 classes"),
        ((Z.long(), Z), {}, "found torch.int64"),
        ((Z[0, 0, 0], Z), {}, r"found shape \(3,\)"),
        ((Z, Mixed(Z, Z[:1], Z[:, 0] > 0)), {}, "teacher_logits.b"),
        ((Z, Mixed(Z, Z, Z[:, 0, 0] > 0)), {}, r"teacher_logits.mask: found shape \(2, 3\)"),
        ((Z, Mixed(Z, Z, Z[:, 0])), {}, "teacher_logits.mask: found torch.float32"),
    ],
)
def test_wrong_input_says_what_was_found(
    arguments: tuple[Tensor, Tensor], options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        fuzzy_positive_loss(*arguments, **options)


def test_the_other_functions_refuse_wrong_input_too() -> None:
    with pytest.raises(ValueError, match="threshold: found 0"):
        FuzzyPositiveLoss(threshold=0)
    with pytest.raises(ValueError, match="weight: found"):
        FuzzyPositiveLoss(weight="flat")
    with pytest.raises(ValueError, match="at least 2 classes"):
        assign_fuzzy_positives(Z[:, :1])
    with pytest.raises(ValueError, match="members: found shape"):
        fuzzy_positive_weight(Z, Z[:1] > 0)
    with pytest.raises(ValueError, match="a: found 0"):
        fuzzy_positive_weight(Z, Z > 0, a=0)
    with pytest.raises(ValueError, match="target: found shape"):
        positive_gradient_score(Z, Z > 0, torch.zeros(2, 3))


@pytest.mark.parametrize("shape", [(0, 5), (0, 5, 4, 4), (2, 5, 0, 4)])
def test_an_empty_batch_gives_0_and_empty_statistics(shape: tuple[int, ...]) -> None:
    z = torch.zeros(shape).requires_grad_()
    loss, stats = fuzzy_positive_loss(z, torch.zeros(shape), balance=True, return_stats=True)
    loss.backward()
    assert loss == 0
    assert z.grad is not None and z.grad.shape == shape
    assert stats["k_histogram"].tolist() == [0] * 4
