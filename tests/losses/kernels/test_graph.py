"""Kernels in a graph that is kept, differentiated twice, or compiled; and the choice between them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from fuzzyseg import Mixed, fuzzy_positive_loss
from fuzzyseg.losses import PIXEL_LOSSES, PixelLossModule, masked_mean
from fuzzyseg.losses.kernels import chunked
from fuzzyseg.losses.kernels.custom_op import choose


@pytest.fixture(autouse=True)
def _chosen_by_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FUZZYSEG_KERNEL", raising=False)


def random_logits(*shape: int, seed: int = 0, scale: float = 2.0, dtype: torch.dtype = torch.float32) -> Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def oracle(monkeypatch: pytest.MonkeyPatch, call, *arguments, **options):
    """The same call with the readable form."""
    with monkeypatch.context() as patch:
        patch.setenv("FUZZYSEG_KERNEL", "reference")
        return call(*arguments, **options)


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("size", [None, (9, 11)])
def test_a_graph_may_be_kept_and_gone_through_again(reduction: str, size) -> None:
    z, t = random_logits(2, 5, 6, 6, seed=19).requires_grad_(), random_logits(2, 5, 6, 6, seed=20)
    loss = (fuzzy_positive_loss(z, t, reduction=reduction, size=size) * 3).sum()
    first = torch.autograd.grad(loss, z, retain_graph=True)[0].clone()
    second = torch.autograd.grad(loss * 2, z, retain_graph=True)[0].clone()
    third = torch.autograd.grad(loss, z)[0]
    torch.testing.assert_close(second, 2 * first)
    torch.testing.assert_close(third, first)
    with pytest.raises(RuntimeError):
        torch.autograd.grad(loss, z)


@pytest.mark.parametrize("size", [None, (9, 9)])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_second_derivative_is_refused_in_words(reduction: str, size: tuple[int, int] | None) -> None:
    """Also if the incoming gradient is constant, where the second derivative would silently be 0."""
    z, t = random_logits(1, 5, 4, 4, seed=21).requires_grad_(), random_logits(1, 5, 4, 4, seed=22)
    loss = fuzzy_positive_loss(z, t, reduction=reduction, size=size)
    for end in (loss.sum(), loss.square().sum()):
        (grad,) = torch.autograd.grad(end, z, create_graph=True)
        with pytest.raises(RuntimeError, match="FUZZYSEG_KERNEL=reference"):
            torch.autograd.grad(grad.square().sum() + z.sum(), z)
        (grad,) = torch.autograd.grad(end, z, retain_graph=True)
        assert not grad.requires_grad


def test_no_gradient_is_made_where_none_is_wanted() -> None:
    z, t = random_logits(1, 5, 4, 4, seed=23), random_logits(1, 5, 4, 4, seed=24).requires_grad_()
    assert not fuzzy_positive_loss(z, t).requires_grad
    with torch.no_grad():
        assert not fuzzy_positive_loss(z.clone().requires_grad_(), t).requires_grad


@pytest.mark.skipif(torch.__version__ < "2.9", reason="PyTorch 2.8 and older cannot compile is_autocast_available")
def test_a_whole_step_compiles_without_a_break() -> None:
    network_ = nn.Conv2d(3, 5, 3, padding=1, stride=2)
    fuzzy = PixelLossModule(PIXEL_LOSSES["fuzzy"], {"balance": True})
    hard = PixelLossModule(PIXEL_LOSSES["hard"], {})

    def step(image: Tensor, a: Tensor, b: Tensor, mask: Tensor, valid: Tensor) -> Tensor:
        z = network_(image)
        terms = fuzzy(z, Mixed(a, b, mask), size=(16, 16), valid=valid, progress=(0, 1), maps=True)
        other = hard(z, a, size=(16, 16), valid=valid, progress=(0, 1))
        whole = fuzzy_positive_loss(z, a) + fuzzy_positive_loss(z, a, reduction="none", threshold=0.8).square().mean()
        return masked_mean(terms.loss, valid) + masked_mean(other.loss, valid) + whole + terms.stats["weight"]

    arguments = (
        random_logits(2, 3, 16, 16, seed=25),
        random_logits(2, 5, 8, 8, seed=26),
        random_logits(2, 5, 8, 8, seed=27),
        random_logits(2, 16, 16, seed=28) > 0,
        random_logits(2, 16, 16, seed=29) > -1,
    )
    expected = step(*arguments)
    result = torch.compile(step, fullgraph=True, backend="aot_eager")(*arguments)
    torch.testing.assert_close(result, expected)
    weights = list(network_.parameters())
    torch.testing.assert_close(torch.autograd.grad(result, weights), torch.autograd.grad(expected, weights))


def test_the_form_is_chosen_by_device_and_by_the_variable(monkeypatch) -> None:
    z = random_logits(1, 5, 4, 4)
    assert choose(z, z) == "chunked"
    assert choose(z.to("meta"), z.to("meta")) == "reference"
    assert choose(z, z.double()) == "reference"
    monkeypatch.setenv("FUZZYSEG_KERNEL", "reference")
    assert choose(z, z) == "reference"
    monkeypatch.setenv("FUZZYSEG_KERNEL", "fast")
    with pytest.raises(ValueError, match="FUZZYSEG_KERNEL: found 'fast', expected one of reference, chunked"):
        fuzzy_positive_loss(z, z)


def test_reference_runs_no_kernel(monkeypatch) -> None:
    def refuse(*arguments, **options):
        raise AssertionError("a kernel ran")

    monkeypatch.setattr(chunked, "run", refuse)
    z = random_logits(1, 5, 4, 4)
    with pytest.raises(AssertionError, match="a kernel ran"):
        fuzzy_positive_loss(z, z)
    oracle(monkeypatch, fuzzy_positive_loss, z, z)
    oracle(monkeypatch, PIXEL_LOSSES["hard"], z, z, size=(4, 4), valid=z[:, 0] > 0, balance=True)


def test_wrong_options_are_refused_by_every_form(monkeypatch) -> None:
    z = random_logits(1, 5, 4, 4)
    for form in ("reference", "chunked"):
        monkeypatch.setenv("FUZZYSEG_KERNEL", form)
        with pytest.raises(ValueError, match="rule: found K = 5 for 5 classes"):
            fuzzy_positive_loss(z, z, rule=5)


def test_importing_the_losses_starts_no_compiler() -> None:
    code = "import sys, fuzzyseg; sys.exit('torch._inductor.compile_fx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=os.environ, timeout=120).returncode == 0
