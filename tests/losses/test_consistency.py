"""Distances between predictions, each against a loop over pixels and classes."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from fuzzyseg.losses import kl_divergence, squared_error
from fuzzyseg.ops.mix import Mixed

ALL = [squared_error, kl_divergence]
SIZE = (5, 7)


def inputs():
    generator = torch.Generator().manual_seed(0)
    z, t = (2 * torch.randn(2, 4, 3, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    return z.requires_grad_(), t.requires_grad_(), torch.rand(2, *SIZE, generator=generator) > 0.3


def up(logits):
    return F.interpolate(logits, size=SIZE, mode="bilinear", align_corners=True)


def literal(function, z, t):
    """The distance of one pixel's logits, two lists of numbers."""
    q, p = ([math.exp(v) / sum(map(math.exp, values)) for v in values] for values in (z, t))
    pairs = list(zip(p, q, strict=True))
    if function is squared_error:
        return sum((a - b) ** 2 for a, b in pairs)
    return sum(a * math.log(a / b) for a, b in pairs)


@pytest.mark.parametrize("function", ALL)
def test_values_gradients_and_nothing_where_invalid(function):
    z, t, valid = inputs()
    result = function(z, t, size=SIZE, valid=valid)
    for b in range(2):
        for y in range(SIZE[0]):
            for x in range(SIZE[1]):
                pixel = literal(function, up(z)[b, :, y, x].tolist(), up(t)[b, :, y, x].tolist())
                assert float(result[b, y, x].detach()) == pytest.approx(pixel if valid[b, y, x] else 0.0, abs=1e-12)
    assert torch.autograd.grad(result.sum(), t, allow_unused=True, retain_graph=True)[0] is None
    assert torch.autograd.grad(result.sum(), z)[0].abs().sum() > 0
    assert torch.autograd.gradcheck(lambda z: function(z, t, size=SIZE, valid=valid), (z,))


@pytest.mark.parametrize("function", ALL)
def test_two_images_are_mixed_after_resizing(function):
    z, t, valid = inputs()
    mask = torch.zeros(2, *SIZE, dtype=torch.bool)
    mask[:, 1:4, 2:5] = True
    other = t.flip(0) - 1
    result = function(z, Mixed(t, other, mask), size=SIZE, valid=valid)
    expected = function(up(z), torch.where(mask.unsqueeze(1), up(other), up(t)), size=SIZE, valid=valid)
    torch.testing.assert_close(result, expected)


@pytest.mark.parametrize(("function", "far"), [(squared_error, 2.0), (kl_divergence, 2e4)])
def test_opposite_certainties_stay_finite(function, far):
    z = torch.tensor([1e4, -1e4, -1e4]).view(1, 3, 1, 1).requires_grad_()
    t = torch.tensor([-1e4, 1e4, -1e4]).view(1, 3, 1, 1)
    result = function(z, t, size=(1, 1), valid=torch.ones(1, 1, 1, dtype=torch.bool))
    torch.testing.assert_close(result.detach(), torch.full((1, 1, 1), far))
    assert torch.autograd.grad(result.sum(), z)[0].isfinite().all()


@pytest.mark.parametrize("function", ALL)
def test_half_precision_under_autocast_is_computed_in_fp32(function):
    z, t, valid = inputs()
    z, t = z.detach().bfloat16(), t.detach().bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        result = function(z, t, size=SIZE, valid=valid)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, function(z.float(), t.float(), size=SIZE, valid=valid))


def test_a_constant_added_to_the_logits_matters_to_the_error_of_logits_alone():
    z, t, valid = inputs()
    for of, same in (("probabilities", True), ("logits", False)):
        before, after = (squared_error(s, t, size=SIZE, valid=valid, of=of) for s in (z, z + 1))
        assert torch.allclose(before, after) == same
    result = squared_error(z, t, size=SIZE, valid=valid, of="logits")
    torch.testing.assert_close(result, ((up(z) - up(t)) ** 2).sum(1) * valid)


def test_shapes_that_do_not_fit_are_named():
    z, t, valid = inputs()
    with pytest.raises(ValueError, match="valid: found shape"):
        squared_error(z, t, size=SIZE, valid=valid[:1])
    with pytest.raises(ValueError, match="teacher_logits"):
        kl_divergence(z, t[:, :3], size=SIZE, valid=valid)
