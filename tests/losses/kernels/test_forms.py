"""The fast forms against the readable form in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fuzzyseg import Mixed, assign_fuzzy_positives, fuzzy_positive_loss
from fuzzyseg.losses import PIXEL_LOSSES, masked_mean
from fuzzyseg.losses.fpl.options import FPLOptions
from fuzzyseg.losses.fpl.reference import fuzzy_positive_map
from fuzzyseg.losses.kernels import chunk_io, chunked, cpu, cpu_assignment, no_sync

RULES = ("n-1", "n", "continuous", 1, 2)
KINDS = ("concave", "linear", "convex", "convex1", "none")
CORES = {"cpu": cpu.fuzzy_pixels, "no_sync": no_sync.fuzzy_pixels}


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


def kinds_of_data(classes: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Teachers (2,C,7,9): confident, unsure, nearly uniform, tied, far apart."""
    base = random_logits(2, classes, 7, 9, seed=classes, scale=1.0, dtype=dtype)
    label = torch.randint(classes, (2, 1, 7, 9), generator=torch.Generator().manual_seed(3))
    top = torch.zeros_like(base).scatter_(1, label, 9.0)
    return {
        "confident": base + top,
        "unsure": base + top * (torch.arange(63).view(7, 9) % 2),
        "uniform": base * 0.05,
        "tied": (base * 2).round(),
        "zero": base * 0,
        "far": base * 80,
    }


def far_from_a_boundary(teacher: Tensor, threshold: float, rule: str = "n-1") -> Tensor:
    """Where fp32 and fp64 agree on the set: no sum of probabilities within 1e-5 of T, no two nearly equal at rank K."""
    p = teacher.double().softmax(1).sort(1, descending=True).values
    sure = (p.cumsum(1)[:, :-1] - threshold).abs().amin(1) > 1e-5 if threshold < 1 else p[:, 0] > 0
    k = assign_fuzzy_positives(teacher.double(), threshold=threshold).sum(1, keepdim=True)
    padded = torch.cat([p, p[:, -1:] - 1], 1)
    for rank in (k - 1, k):
        gap = (padded.gather(1, rank) - padded.gather(1, rank + 1)).squeeze(1)
        sure = sure & ((gap > 1e-6) | (gap == 0))
    # (T - S) / p_c divides the rounding error of S, about 1e-7, by p_c, also in the readable form.
    return sure & (p.gather(1, k).squeeze(1) > 0.2) if rule == "continuous" else sure


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("variant", ["paper", "official"])
@pytest.mark.parametrize("classes", [2, 3, 11, 21])
def test_loss_and_gradient_are_those_of_the_readable_form(monkeypatch, classes: int, variant: str, rule) -> None:
    if rule == 2 and classes < 3:
        pytest.skip("K = 2 needs three classes")
    for seed, (name, teacher) in enumerate(kinds_of_data(classes, torch.float64).items()):
        student = random_logits(2, classes, 7, 9, seed=seed, scale=40.0 if name == "far" else 2.0, dtype=torch.float64)
        student.requires_grad_()
        options = {
            "weight": KINDS[seed % 5],
            "rule": rule,
            "variant": variant,
            "threshold": (0.9, 0.5, 0.99)[seed % 3],
            "k_cap": (None, 4)[seed % 2],
            "reduction": "none",
        }
        expected = oracle(monkeypatch, fuzzy_positive_loss, student, teacher, **options)
        result = fuzzy_positive_loss(student, teacher, **options)
        torch.testing.assert_close(result, expected, rtol=1e-9, atol=1e-11)
        upstream = random_logits(2, 7, 9, seed=50, dtype=torch.float64)
        grads = [torch.autograd.grad((loss * upstream).sum(), student)[0] for loss in (result, expected)]
        torch.testing.assert_close(grads[0], grads[1], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("threshold", [0.5, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("classes", [3, 19, 150])
def test_fp32_within_the_stated_tolerance(monkeypatch, classes: int, threshold: float) -> None:
    for rule in ("n-1", "continuous"):
        for teacher in kinds_of_data(classes, torch.float32).values():
            student = random_logits(2, classes, 7, 9, seed=1).requires_grad_()
            exact = student.detach().double().requires_grad_()
            sure = far_from_a_boundary(teacher, threshold, rule)
            options = {"threshold": threshold, "valid": sure, "rule": rule}
            expected = oracle(monkeypatch, fuzzy_positive_loss, exact, teacher.double(), **options)
            result = fuzzy_positive_loss(student, teacher, **options)
            torch.testing.assert_close(result.double(), expected, rtol=1e-5, atol=3e-6)  # a weight of 0 +- 1e-7
            pixels = max(int(sure.sum()), 1)
            grads = [
                pixels * torch.autograd.grad(loss, leaf)[0] for loss, leaf in ((result, student), (expected, exact))
            ]
            assert float((grads[0] - grads[1]).abs().max()) < 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_that_of_its_rounded_inputs(monkeypatch, dtype: torch.dtype) -> None:
    for rule in ("n-1", "continuous"):
        for teacher in kinds_of_data(19, torch.float32).values():
            student = random_logits(2, 19, 7, 9, seed=1).to(dtype).requires_grad_()
            exact = student.detach().double().requires_grad_()
            teacher = teacher.clamp(-1e4, 1e4).to(dtype)
            sure = far_from_a_boundary(teacher, 0.9, rule)
            maps = [
                fuzzy_positive_loss(student, teacher, rule=rule, reduction="none"),
                oracle(monkeypatch, fuzzy_positive_loss, exact, teacher.double(), rule=rule, reduction="none"),
            ]
            torch.testing.assert_close(maps[0][sure].double(), maps[1][sure], rtol=1e-5, atol=1e-6)
            grads = [
                torch.autograd.grad((loss * sure).sum(), leaf)[0]
                for loss, leaf in zip(maps, (student, exact), strict=True)
            ]
            assert grads[0].dtype == dtype
            torch.testing.assert_close(grads[0].double(), grads[1], rtol=torch.finfo(dtype).eps, atol=1e-6)


@pytest.mark.parametrize("name", CORES)
@pytest.mark.parametrize("rule", RULES)
def test_every_core_gives_the_maps_of_the_readable_form(name: str, rule) -> None:
    """Also the core for other devices, with per-pixel thresholds."""
    for teacher in kinds_of_data(7, torch.float64).values():
        t = teacher[0].flatten(1)
        z = random_logits(7, 63, seed=2, dtype=torch.float64)
        threshold = torch.tensor([0.5, 0.75, 0.9, 1.0], dtype=torch.float64)[torch.arange(63) % 4]
        leaf = z.T.clone().requires_grad_()
        options = FPLOptions("concave", 30.0, 5, rule, "paper")
        expected = fuzzy_positive_map(leaf, t.T, threshold, options)
        scale = torch.rand(63, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        out = torch.full_like(z, torch.nan)
        result = CORES[name](z, t, threshold, options, scale, out, cross_entropy=True)
        torch.testing.assert_close(result.loss, expected.loss.detach(), rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(result.weight, expected.weight, rtol=1e-9, atol=1e-9)
        k = torch.ones_like(scale) if result.k is None else result.k
        assert torch.equal(k.long(), expected.k)
        assert torch.equal(result.label, expected.label)
        torch.testing.assert_close(result.confidence, expected.confidence)
        torch.testing.assert_close(result.cross_entropy, F.cross_entropy(z.T, expected.label, reduction="none"))
        (grad,) = torch.autograd.grad((expected.loss * scale).sum(), leaf)
        torch.testing.assert_close(out, grad.T, rtol=1e-9, atol=1e-11)


def test_most_and_few_pixels_with_several_positives_are_one_computation(monkeypatch) -> None:
    """Pixels gathered, the chunk computed in full, or neither: the result is the same."""
    z, t = random_logits(9, 400, seed=4), random_logits(9, 400, seed=5, scale=3.0)
    options = FPLOptions("concave", 50.0, 8, "n-1", "paper")
    results = []
    for most in (-1.0, 2.0):  # all in full; only pixels with several positives
        monkeypatch.setattr(cpu, "MAX_PARTIAL", most)
        out = torch.empty_like(z)
        results.append((*cpu.fuzzy_pixels(z, t, torch.tensor(0.9), options, None, out, cross_entropy=True), out))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    assert results[0][2].max() > 1


@pytest.mark.parametrize("maps", [True, False])
@pytest.mark.parametrize("name", ["fuzzy", "hard"])
def test_pixel_losses_are_those_of_the_readable_form(monkeypatch, name: str, maps: bool) -> None:
    z = random_logits(2, 6, 5, 4, seed=6, dtype=torch.float64).requires_grad_()
    a, b = (random_logits(2, 6, 5, 4, seed=seed, dtype=torch.float64) for seed in (7, 8))
    mask = torch.zeros(2, 9, 11, dtype=torch.bool)
    mask[0, 2:7, 3:8] = True
    valid = torch.rand(2, 9, 11, generator=torch.Generator().manual_seed(2)) > 0.3
    for teacher in (a, Mixed(a, b, mask)):
        for balance in (False, True):
            options = {"size": (9, 11), "valid": valid, "maps": maps, "balance": balance}
            expected = oracle(monkeypatch, PIXEL_LOSSES[name], z, teacher, **options)
            result = PIXEL_LOSSES[name](z, teacher, **options)
            torch.testing.assert_close(result.loss, expected.loss, rtol=1e-9, atol=1e-11)
            assert result.stats.keys() == expected.stats.keys()
            for key, value in expected.stats.items():
                torch.testing.assert_close(result.stats[key], value, rtol=1e-6, atol=1e-7)
                assert not result.stats[key].requires_grad
            for key in ("k", "weight", "confidence", "label"):
                wanted = getattr(expected, key)
                assert wanted is getattr(result, key) if wanted is None else True
                if wanted is not None:
                    torch.testing.assert_close(getattr(result, key), wanted)
            grads = [torch.autograd.grad(masked_mean(x.loss, valid), z)[0] for x in (result, expected)]
            torch.testing.assert_close(grads[0], grads[1], rtol=1e-9, atol=1e-11)


def test_many_chunks_of_any_order_in_memory_give_the_gradient_of_one(monkeypatch) -> None:
    monkeypatch.setattr(chunked, "MIN_CHUNK", 6 * 40)
    z, t = random_logits(3, 6, 11, 13, seed=9, dtype=torch.float64), random_logits(3, 6, 11, 13, seed=10).double()
    expected = torch.autograd.grad(oracle(monkeypatch, fuzzy_positive_loss, z.requires_grad_(), t), z)[0]
    wide = torch.zeros(3, 6, 11, 26, dtype=torch.float64)
    wide[..., ::2] = z.detach()
    for leaf in (
        z.detach(),
        z.detach().to(memory_format=torch.channels_last),
        wide[..., ::2],
        z.detach().transpose(2, 3).contiguous().transpose(2, 3),
    ):
        leaf.requires_grad_()
        half = leaf.detach().bfloat16().requires_grad_()  # its gradient is multiplied in chunks
        (grad,) = torch.autograd.grad(fuzzy_positive_loss(half, t.bfloat16(), reduction="none").sum(), half)
        (whole,) = torch.autograd.grad(fuzzy_positive_loss(half, t.bfloat16()), half)
        torch.testing.assert_close(grad.float(), whole.float() * 3 * 11 * 13, rtol=0.02, atol=1e-6)
        assert grad.stride() == chunk_io.gradient_like(half).stride()
        for teacher in (t, t.to(memory_format=torch.channels_last)):
            (grad,) = torch.autograd.grad(fuzzy_positive_loss(leaf, teacher), leaf)
            torch.testing.assert_close(grad, expected, rtol=1e-9, atol=1e-12)
    channels_last = z.detach().to(memory_format=torch.channels_last)
    assert chunk_io.gradient_like(channels_last).stride() == channels_last.stride()


def test_sorting_networks_sort() -> None:
    for rows in range(2, 30):
        values = torch.randint(0, 9, (rows, 2000), generator=torch.Generator().manual_seed(rows)).float()
        expected = values.sort(0, descending=True).values
        for top in {1, 2, rows // 2 + 1, rows}:
            assert torch.equal(torch.stack(cpu_assignment.sort_rows(values.clone(), top)), expected[:top])
            few = torch.stack(cpu_assignment.sort_rows(values[:, :3].clone(), top))
            assert torch.equal(few, expected[:top, :3])
        assert torch.equal(torch.stack(cpu_assignment.two_largest(values)), expected[:2])
    assert len(cpu_assignment.comparators(21, 21)) == 107


def test_assignment_and_loss_agree_on_k() -> None:
    t = random_logits(2, 8, 20, 20, seed=33, scale=1.5)
    _, stats = fuzzy_positive_loss(t, t, return_stats=True)
    k = assign_fuzzy_positives(t).sum(1).flatten()
    torch.testing.assert_close(stats["k_histogram"], torch.bincount(k - 1, minlength=7) / len(k))
