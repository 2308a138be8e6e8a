"""Up-sampling inside the loss against interpolation before it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fuzzyseg import Mixed, fuzzy_positive_loss
from fuzzyseg.losses import PIXEL_LOSSES, masked_mean
from fuzzyseg.losses.kernels import chunked, custom_op
from fuzzyseg.losses.kernels.chunk_io import Grid

SIZES = [
    ((5, 4), (20, 16)),
    ((5, 7), (33, 21)),
    ((4, 4), (64, 5)),
    ((9, 8), (4, 3)),
    ((1, 3), (7, 3)),
    ((3, 1), (1, 300)),
]


@pytest.fixture(autouse=True)
def _in_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bands of a row or two, so that every test has many."""
    monkeypatch.delenv("FUZZYSEG_KERNEL", raising=False)
    monkeypatch.setattr(chunked, "MIN_CHUNK", 64)


def random_logits(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return 2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def up(logits: Tensor, size: tuple[int, int], align_corners: bool) -> Tensor:
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=align_corners)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("old", "new"), SIZES)
def test_a_band_is_that_of_interpolate_and_its_adjoint_the_gradient(old, new, align_corners: bool) -> None:
    z = random_logits(1, 3, *old).requires_grad_()
    upstream = random_logits(1, 3, *new, seed=1)
    full = up(z, new, align_corners)
    (expected,) = torch.autograd.grad(full, z, upstream)
    grid = Grid(old, new, align_corners=align_corners, dtype=torch.float64, device=z.device)
    summed = torch.zeros(3, *old, dtype=torch.float64)
    for rows in (1, 3):
        summed.zero_()
        for top in range(0, new[0], rows):
            bottom = min(top + rows, new[0])
            torch.testing.assert_close(grid.upsample(z[0].detach(), top, bottom), full[0, :, top:bottom].detach())
            grid.upsample_adjoint(upstream[0, :, top:bottom], top, bottom, summed)
        torch.testing.assert_close(summed, expected[0])


def test_weights_in_fp32_are_those_of_interpolate() -> None:
    """Within what fp32 leaves of a source index of a hundred, 1e-5 of a pixel."""
    z = random_logits(1, 2, 129, 129, dtype=torch.float32)
    for align_corners in (False, True):
        grid = Grid((129, 129), (1021, 1023), align_corners=align_corners, dtype=torch.float32, device=z.device)
        full = up(z, (1021, 1023), align_corners)[0]
        torch.testing.assert_close(grid.upsample(z[0], 500, 1021), full[:, 500:], rtol=1e-5, atol=2e-4)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("options", [{}, {"rule": "continuous"}, {"balance": True, "variant": "official"}])
def test_the_loss_is_that_of_interpolated_logits(align_corners: bool, options: dict[str, object]) -> None:
    z, a, b = (random_logits(2, 6, 5, 4, seed=seed) for seed in (2, 3, 4))
    size = (17, 13)
    mask = torch.zeros(2, *size, dtype=torch.bool)
    mask[0, 3:12, 2:9] = True
    mask[1] = True
    valid = torch.rand(2, *size, generator=torch.Generator().manual_seed(0)) > 0.3
    z8, a8, b8 = (up(x, size, align_corners) for x in (z.requires_grad_(), a, b))
    pairs = {
        "low": (z, a, z8, a8),
        "one side": (z, a8, z8, a8),
        "other side": (z8.detach().requires_grad_(), a, None, a8),
        "mixed": (z, Mixed(a, b, mask), z8, torch.where(mask[:, None], b8, a8)),
        "mixed sizes": (z, Mixed(a8, b, mask), z8, torch.where(mask[:, None], b8, a8)),
        "mixed at size": (z, Mixed(a8, b8, mask), z8, torch.where(mask[:, None], b8, a8)),
    }
    for student, teacher, full, target in pairs.values():
        for more in ({}, {"valid": valid}, {"valid": valid * 0.3}, {"threshold": 0.5 + 0.5 * valid.double()}):
            result = fuzzy_positive_loss(
                student, teacher, size=size, align_corners=align_corners, return_stats=True, **more, **options
            )
            expected = fuzzy_positive_loss(
                student if full is None else full, target, return_stats=True, **more, **options
            )
            torch.testing.assert_close(result, expected)
            grads = [torch.autograd.grad(loss, student, retain_graph=True)[0] for loss, _ in (result, expected)]
            torch.testing.assert_close(*grads)


@pytest.mark.parametrize("kind", ["fuzzy", "hard"])
def test_any_gradient_may_arrive_at_the_map(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """A mean over valid pixels needs no second pass; another weighting does, and gets it."""
    z, t = random_logits(2, 5, 4, 5, seed=5).requires_grad_(), random_logits(2, 5, 4, 5, seed=6)
    size = (16, 15)
    full, target = up(z, size, True), up(t, size, True)
    generator = torch.Generator().manual_seed(1)
    valid, other = (torch.rand(2, *size, generator=generator, dtype=torch.float64) for _ in range(2))
    valid = valid * (valid > 0.3)
    passes = []
    run = chunked.run
    monkeypatch.setattr(custom_op.chunked, "run", lambda *arguments: passes.append(1) or run(*arguments))
    for weights, count in (
        (valid, 1),
        (valid * 7, 1),
        (other, 2),
        (valid * (other > 0.5), 2),
        (torch.zeros_like(valid), 1),
    ):
        passes.clear()
        result = PIXEL_LOSSES[kind](z, t, size=size, valid=valid)
        grads = [torch.autograd.grad(3 * masked_mean(result.loss, weights), z)[0]]
        assert len(passes) == count
        expected = PIXEL_LOSSES[kind](full, target, size=size, valid=valid)
        grads += torch.autograd.grad(3 * masked_mean(expected.loss, weights), z, retain_graph=True)
        torch.testing.assert_close(*grads)
    nothing = torch.zeros(2, *size, dtype=torch.bool)
    result = PIXEL_LOSSES[kind](z, t, size=size, valid=nothing)
    assert not torch.autograd.grad(masked_mean(result.loss, nothing), z)[0].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_twice_the_same_gradient_bit_for_bit(dtype: torch.dtype) -> None:
    z, t = (random_logits(2, 7, 9, 10, seed=seed, dtype=torch.float32).to(dtype) for seed in (7, 8))
    z.requires_grad_()
    grads = [torch.autograd.grad(fuzzy_positive_loss(z, t, size=(70, 150), align_corners=True), z)[0] for _ in range(2)]
    assert torch.equal(*grads)
    assert grads[0].dtype == dtype
    exact = z.detach().double().requires_grad_()
    loss = fuzzy_positive_loss(exact, t.double(), size=(70, 150), align_corners=True)
    (expected,) = torch.autograd.grad(loss, exact)
    torch.testing.assert_close(grads[0].double(), expected, rtol=torch.finfo(dtype).eps, atol=1e-5)


def test_channels_last_keeps_its_order() -> None:
    z, t = random_logits(2, 6, 5, 4, seed=9), random_logits(2, 6, 5, 4, seed=10)
    expected = torch.autograd.grad(fuzzy_positive_loss(z.requires_grad_(), t, size=(11, 12)), z)[0]
    last = z.detach().to(memory_format=torch.channels_last).requires_grad_()
    (grad,) = torch.autograd.grad(fuzzy_positive_loss(last, t, size=(11, 12)), last)
    assert grad.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(grad, expected)
