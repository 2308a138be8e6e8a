"""Pixel losses and the means over pixels."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fuzzyseg import Mixed, assign_fuzzy_positives, fuzzy_positive_loss, fuzzy_positive_weight
from fuzzyseg.losses import PIXEL_LOSSES, SET_LOSSES, PixelLossModule, masked_mean
from fuzzyseg.ops import distributed

SIZE = (8, 9)
LOSSES = {**PIXEL_LOSSES, "thresholded": partial(PIXEL_LOSSES["thresholded"], confidence=0.5)}


def inputs(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Student and teacher logits at stride, and a valid mask at image size."""
    generator = torch.Generator().manual_seed(0)
    z, t = (2 * torch.randn(2, 5, 4, 4, generator=generator, dtype=dtype) for _ in range(2))
    return z, t, torch.rand(2, *SIZE, generator=generator) > 0.3


def up(logits: Tensor) -> Tensor:
    return F.interpolate(logits, size=SIZE, mode="bilinear", align_corners=True)


def expected(name: str, z: Tensor, t: Tensor) -> Tensor:
    if name == "hard":
        return F.cross_entropy(z, t.argmax(1), reduction="none")
    if name == "soft":
        return sum(-t.softmax(1)[:, c] * (z[:, c] - z.exp().sum(1).log()) for c in range(5))
    if name == "thresholded":
        return F.cross_entropy(z, t.argmax(1), reduction="none") * (t.softmax(1).amax(1) >= 0.5)
    if name == "fuzzy":
        return fuzzy_positive_loss(z, t, reduction="none")
    members = assign_fuzzy_positives(t)
    p, weight = z.softmax(1), fuzzy_positive_weight(t, members)
    if name == "negative":
        return -weight * (~members * (1 - p).log()).sum(1)
    return -weight * (members * p).sum(1).log()


@pytest.mark.parametrize("name", PIXEL_LOSSES)
def test_values_at_image_size_and_zero_where_invalid(name: str) -> None:
    z, t, valid = inputs(torch.float64)
    z.requires_grad_(), t.requires_grad_()
    result = LOSSES[name](z, t, size=SIZE, valid=valid, threshold=0.9)
    torch.testing.assert_close(result.loss, expected(name, up(z), up(t)) * valid)
    assert torch.autograd.grad(result.loss.sum(), t, allow_unused=True, retain_graph=True)[0] is None
    assert torch.autograd.grad(result.loss.sum(), z)[0].abs().sum() > 0
    assert result.k is result.weight is result.confidence is result.label is None


@pytest.mark.parametrize("name", PIXEL_LOSSES)
def test_maps_and_statistics(name: str) -> None:
    z, t, valid = inputs()
    result = LOSSES[name](z.requires_grad_(), t, size=SIZE, valid=valid, threshold=0.9, maps=True)
    top = up(t).softmax(1).max(1)
    assert torch.equal(result.label, top.indices)
    torch.testing.assert_close(result.confidence, top.values)
    torch.testing.assert_close(result.stats["confidence"], top.values[valid].mean())
    shares = torch.bincount(top.indices[valid], minlength=5) / valid.sum()
    torch.testing.assert_close(result.stats["label_histogram"], shares)
    assert not any(
        value.requires_grad for value in [*result.stats.values(), result.k, result.weight, result.confidence]
    )
    if name in SET_LOSSES:
        members = assign_fuzzy_positives(up(t))
        assert torch.equal(result.k, members.sum(1))
        torch.testing.assert_close(result.weight, fuzzy_positive_weight(up(t), members))
        torch.testing.assert_close(result.stats["weight"], result.weight[valid].mean())
        counts = torch.bincount(result.k[valid] - 1, minlength=4) / valid.sum()
        torch.testing.assert_close(result.stats["k_histogram"], counts)
    elif name == "thresholded":
        assert (result.k == 1).all()
        torch.testing.assert_close(result.weight, (top.values >= 0.5).float())
    else:
        assert (result.k == 1).all()
        assert (result.weight == 1).all()
        assert result.stats.keys() == {"confidence", "label_histogram"}


@pytest.mark.parametrize("name", PIXEL_LOSSES)
def test_mixed_weights_half_precision_and_autocast(name: str) -> None:
    z, t, valid = inputs()
    other = t.flip(0) - 1
    mask = torch.zeros(2, *SIZE, dtype=torch.bool)
    mask[:, 2:6, 1:5] = True
    call = LOSSES[name]
    mixed = call(z, Mixed(t, other, mask), size=SIZE, valid=valid, threshold=0.9).loss
    blended = torch.where(mask[:, None], up(other), up(t))
    torch.testing.assert_close(mixed, expected(name, up(z), blended) * valid)
    weighted = call(z, t, size=SIZE, valid=valid * 0.25, threshold=0.9).loss  # weights apply in the mean only
    torch.testing.assert_close(weighted, call(z, t, size=SIZE, valid=valid, threshold=0.9).loss)
    half = call(z.half(), t.half(), size=SIZE, valid=valid, threshold=0.9).loss
    assert half.dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(call(z.half(), t.half(), size=SIZE, valid=valid, threshold=0.9).loss, half)


@pytest.mark.parametrize("name", PIXEL_LOSSES)
@pytest.mark.parametrize("side", [0, 1])
def test_extreme_logits_stay_finite_and_a_nan_shows(name: str, side: int) -> None:
    z, t, valid = inputs()
    both = [z * 2.5e3, t * 2.5e3]
    both[0].requires_grad_()
    loss = masked_mean(LOSSES[name](*both, size=SIZE, valid=valid, threshold=0.9).loss, valid)
    assert loss.isfinite()
    assert torch.autograd.grad(loss, both[0])[0].isfinite().all()
    broken = [x.detach().clone() for x in both]
    broken[side][0, 3] = torch.nan
    assert masked_mean(LOSSES[name](*broken, size=SIZE, valid=valid, threshold=0.9).loss, valid).isnan()


def test_the_fuzzy_loss_takes_its_options() -> None:
    z, t, valid = inputs()
    options = {"weight": "linear", "k_cap": 2, "rule": "n", "variant": "official", "balance": True}
    result = PIXEL_LOSSES["fuzzy"](z, t, size=SIZE, valid=valid, threshold=0.75, **options)
    public = fuzzy_positive_loss(
        z, t, threshold=0.75, valid=valid, size=SIZE, align_corners=True, reduction="none", **options
    )
    torch.testing.assert_close(result.loss, public)
    hard = PIXEL_LOSSES["hard"](z, t, size=SIZE, valid=valid, threshold=0.75)
    torch.testing.assert_close(masked_mean(result.loss, valid), masked_mean(hard.loss, valid))
    steeper = PIXEL_LOSSES["fuzzy"](z, t, size=SIZE, valid=valid, threshold=0.75, a=5.0, maps=True)
    members = assign_fuzzy_positives(up(t), threshold=0.75)
    torch.testing.assert_close(steeper.weight, fuzzy_positive_weight(up(t), members, a=5.0))
    with pytest.raises(ValueError, match="weight: found"):
        PIXEL_LOSSES["fuzzy"](z, t, size=SIZE, valid=valid, threshold=0.75, weight="flat")
    with pytest.raises(ValueError, match="valid: found shape"):
        PIXEL_LOSSES["hard"](z, t, size=SIZE, valid=valid[:1], threshold=0.75)


def test_the_module_holds_the_threshold_as_a_buffer() -> None:
    z, t, valid = inputs()
    module = PixelLossModule(PIXEL_LOSSES["fuzzy"], {"weight": "none"}, threshold=0.9)
    assert module.state_dict()["threshold"] == pytest.approx(0.9)
    for threshold in (0.9, 0.6):
        module.threshold.fill_(threshold)  # as a policy does
        result = module(z, t, size=SIZE, valid=valid, progress=(0, 10), maps=True)
        assert torch.equal(result.k, assign_fuzzy_positives(up(t), threshold=threshold).sum(1))
    assert "fuzzy" in repr(module)
    assert "weight='none'" in repr(module)
    with pytest.raises(ValueError, match="threshold: found 2"):
        PixelLossModule(PIXEL_LOSSES["hard"], {}, threshold=2)


def test_masked_mean_counts_valid_values_only() -> None:
    values = torch.tensor([[1.0, 2.0, torch.nan, 4.0]], requires_grad=True)
    valid = torch.tensor([[True, True, False, True]])
    assert masked_mean(values, valid).item() == pytest.approx(7 / 3)
    weights = torch.tensor([[0.1, 0.2, 0.0, 0.0]])  # also divided by a sum below 1
    assert masked_mean(values, weights).item() == pytest.approx(0.5 / 0.3)
    nothing = masked_mean(values, torch.zeros(1, 4, dtype=torch.bool))
    assert nothing.item() == 0
    assert torch.equal(torch.autograd.grad(nothing, values)[0], torch.zeros(1, 4))
    assert masked_mean(values, torch.ones(1, 4)).isnan()


def test_masked_mean_divides_by_the_mean_over_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [torch.tensor([1.0, 5.0, 3.0]), torch.tensor([7.0])]
    sizes = torch.tensor([3.0, 1.0])
    monkeypatch.setattr(distributed, "mean", lambda value: sizes.mean())
    losses = [masked_mean(part, torch.ones_like(part)) for part in parts]
    assert float(sum(losses) / 2) == pytest.approx(float(torch.cat(parts).mean()))


def test_weights_of_half_precision_are_summed_in_full():
    values = torch.ones(1, 300, 300)
    for dtype in (torch.float16, torch.bfloat16, torch.bool):
        torch.testing.assert_close(masked_mean(values, torch.ones(1, 300, 300, dtype=dtype)), torch.tensor(1.0))
    loss = fuzzy_positive_loss(
        torch.zeros(1, 4, 300, 300), torch.zeros(1, 4, 300, 300), weight="none", valid=values.half()
    )
    assert float(loss) > 0.5
