"""The kernels in Triton against the readable form in float64: on a GPU, or on the CPU in Triton's interpreter.

In the interpreter a program costs as much as thousands of its pixels: the tests have few programs, with much in each.
"""

from __future__ import annotations

import gc
import os
import weakref
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from fuzzyseg import Mixed, assign_fuzzy_positives, fuzzy_positive_loss
from fuzzyseg.losses import PIXEL_LOSSES, PixelLossModule, masked_mean
from fuzzyseg.losses.fpl.options import FPLOptions
from fuzzyseg.losses.kernels.chunked import LossInputs
from fuzzyseg.losses.kernels.custom_op import choose

pytest.importorskip("triton", reason="the kernels on CUDA need triton, an optional dependency")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
RULES = ("n-1", "n", "continuous", 1, 2)
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # from numpy: overflow of an exponential


@pytest.fixture(autouse=True)
def _form(monkeypatch: pytest.MonkeyPatch) -> None:
    if DEVICE == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("no GPU, and TRITON_INTERPRET is not 1")
    monkeypatch.setenv("FUZZYSEG_KERNEL", "triton")


def logits(*shape: int, seed: int = 0, scale: float = 2.0, dtype: torch.dtype = torch.float32) -> Tensor:
    return (scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))).to(DEVICE, dtype)


def oracle(monkeypatch: pytest.MonkeyPatch, call, *arguments, **options):
    """The same call with the readable form."""
    with monkeypatch.context() as patch:
        patch.setenv("FUZZYSEG_KERNEL", "reference")
        return call(*arguments, **options)


def teachers(classes: int, *, width: int = 30) -> Tensor:
    """(1,C,7,width): a row each confident, half confident, nearly uniform, tied, all equal, far apart, a class -inf."""
    base = logits(1, classes, 7, width, seed=classes, scale=1.0)
    label = torch.randint(classes, (1, 1, 1, width), generator=torch.Generator().manual_seed(3)).to(DEVICE)
    top = torch.zeros_like(base[:, :, :1]).scatter_(1, label, 9.0)
    half = top * (torch.arange(width, device=DEVICE) % 2)
    rows = base.split(1, 2)
    gone = rows[6].clone()
    gone[:, classes - 1] = -torch.inf
    kinds = (rows[0] + top, rows[1] + half, rows[2] * 0.05, (rows[3] * 2).round(), rows[4] * 0, rows[5] * 40, gone)
    return torch.cat(kinds, 2)


def sure(teacher: Tensor, threshold: float | Tensor, rule="n-1", variant: str = "paper") -> Tensor:
    """Where fp32 and fp64 agree on the set: no running sum of probabilities lies within 1e-5 of T."""
    total = teacher.double().softmax(1).sort(1, descending=True).values.cumsum(1)[:, :-1]
    limit = threshold if not isinstance(threshold, Tensor) or threshold.dim() == 0 else threshold.unsqueeze(1)
    return ((total - limit).abs().amin(1) > 1e-5) | (torch.as_tensor(threshold, device=DEVICE) >= 1)


def compare(monkeypatch, z: Tensor, t, *, valid: Tensor, rtol: float = 1e-5, atol: float = 1e-5, **options) -> None:
    """Map, gradient, maps and statistics of `fuzzy`, and the mean form with its gradient, against float64."""
    same = {"weight", "k_cap", "rule", "variant", "threshold"}
    shared = {name: value for name, value in options.items() if name in same}
    size = tuple(z.shape[2:])
    leaf, exact = z.clone(memory_format=torch.preserve_format).requires_grad_(), z.double().requires_grad_()
    result = PIXEL_LOSSES["fuzzy"](leaf, t, size=size, valid=valid, maps=True, **options)
    expected = oracle(
        monkeypatch, PIXEL_LOSSES["fuzzy"], exact, t.double(), size=size, valid=valid, maps=True, **options
    )
    assert torch.equal(result.k, expected.k)
    assert torch.equal(result.label, expected.label)
    close = {"rtol": rtol, "atol": atol, "check_dtype": False}
    for name in ("loss", "weight", "confidence"):
        torch.testing.assert_close(getattr(result, name), getattr(expected, name), **close)
    for name, value in expected.stats.items():
        torch.testing.assert_close(result.stats[name], value, **close)
    upstream = torch.rand(result.loss.shape, generator=torch.Generator().manual_seed(9)).to(DEVICE)
    grads = [torch.autograd.grad((x.loss * upstream).sum(), side) for x, side in ((result, leaf), (expected, exact))]
    torch.testing.assert_close(grads[0][0], grads[1][0], **close)
    mean = fuzzy_positive_loss(leaf, t, valid=valid, **shared)
    wanted = oracle(monkeypatch, fuzzy_positive_loss, exact, t.double(), valid=valid, **shared)
    torch.testing.assert_close(mean, wanted, rtol=rtol, atol=1e-7, check_dtype=False)
    pixels = max(float(valid.sum()), 1.0)
    grads = [torch.autograd.grad(x * pixels, side) for x, side in ((mean, leaf), (wanted, exact))]
    torch.testing.assert_close(grads[0][0], grads[1][0], **close)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("variant", ["paper", "official"])
@pytest.mark.parametrize("classes", [2, 3, 8])
def test_all_is_that_of_the_readable_form(monkeypatch, classes: int, variant: str, rule) -> None:
    if rule == 2 and classes == 2:
        rule = 1
    threshold = 0.7 if classes == 8 else 0.9  # with 0.7 five of eight equal classes are in, three taken away
    t = teachers(classes)
    valid = sure(t, threshold) & (logits(*t[:, 0].shape, seed=5) > -1)
    for cap in (None, 7) if variant == "official" else (None, 2):
        z = logits(*t.shape, seed=1)
        t = torch.where(valid.unsqueeze(1), t, t[:, :, :1, :1])  # K is compared at all pixels
        options = {"rule": rule, "variant": variant, "k_cap": cap, "threshold": threshold}
        compare(monkeypatch, z, t, valid=valid, **options)


@pytest.mark.parametrize("weight", ["concave", "linear", "convex", "convex1", "none"])
@pytest.mark.parametrize("rule", ["n-1", "continuous"])
def test_every_weight_and_balance(monkeypatch, weight: str, rule: str) -> None:
    t = teachers(7)[:, :, [0, 1, 2, 3, 5]]
    valid = sure(t, 0.8)
    t = torch.where(valid.unsqueeze(1), t, t[:, :, :1, :1])
    compare(
        monkeypatch, logits(*t.shape, seed=2), t, valid=valid, weight=weight, rule=rule, threshold=0.8, balance=True
    )


@pytest.mark.parametrize(
    ("classes", "rule", "threshold"), [(40, "n-1", 0.6), (40, "continuous", 0.8), (150, "n", 0.97)]
)
def test_many_classes_have_several_words_of_bits(monkeypatch, classes: int, rule: str, threshold: float) -> None:
    t = teachers(classes, width=16)[:, :, [2, 5]]
    valid = sure(t, threshold)
    t = torch.where(valid.unsqueeze(1), t, t[:, :, :1, :1])
    k = assign_fuzzy_positives(t, threshold=threshold).sum(1)
    assert k.min() == 1
    assert k.max() > classes // 2
    compare(monkeypatch, logits(*t.shape, seed=2), t, valid=valid, rule=rule, threshold=threshold)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rule", ["n-1", "continuous"])
def test_half_precision_is_exact_but_for_the_rounding_of_the_gradient(monkeypatch, dtype: torch.dtype, rule) -> None:
    """With rounded inputs, in which ties are frequent."""
    t = teachers(6)[:, :, :5].to(dtype)
    z = logits(*t.shape, seed=3, dtype=dtype)
    valid = sure(t, 0.9)
    t = torch.where(valid.unsqueeze(1), t, t[:, :, :1, :1])
    for size in (None, (9, 40)):
        leaf, exact = z.clone().requires_grad_(), z.double().requires_grad_()
        options = {"rule": rule, "size": size, "valid": valid if size is None else None, "align_corners": True}
        result = fuzzy_positive_loss(leaf, t, **options)
        expected = oracle(monkeypatch, fuzzy_positive_loss, exact, t.double(), **options)
        assert result.dtype == torch.float32
        torch.testing.assert_close(result, expected, rtol=1e-5, atol=0, check_dtype=False)
        grads = [torch.autograd.grad(x, side)[0] for x, side in ((result, leaf), (expected, exact))]
        assert grads[0].dtype == dtype
        eps = torch.finfo(dtype).eps  # a GPU rounds to nearest; the interpreter truncates
        torch.testing.assert_close(grads[0].double(), grads[1], rtol=eps, atol=1e-7)


def layouts(values: Tensor) -> dict[str, Tensor]:
    """The same logits (B,C,H,W) in several memory layouts."""
    wide = torch.zeros((*values.shape[:3], 2 * values.shape[3]), device=DEVICE)
    wide[..., ::2] = values
    return {
        "contiguous": values,
        "channels_last": values.to(memory_format=torch.channels_last),
        "every second": wide[..., ::2],
        "transposed": values.transpose(2, 3).contiguous().transpose(2, 3),
        "reversed": values.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
    }


@pytest.mark.parametrize("size", [None, (3, 6)])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_any_order_in_memory(monkeypatch, size, reduction: str) -> None:
    z, t = logits(2, 3, 2, 4, seed=6), logits(2, 3, 2, 4, seed=7)
    options = {"reduction": reduction, "size": size}
    exact = z.double().requires_grad_()
    expected = oracle(monkeypatch, fuzzy_positive_loss, exact, t.double(), **options)
    grad = torch.autograd.grad(expected.sum(), exact)[0]
    teacher_layouts = list(layouts(t).values())
    for number, (name, leaf) in enumerate(layouts(z).items()):
        leaf = leaf.detach().requires_grad_()
        result = fuzzy_positive_loss(leaf, teacher_layouts[-number], **options)
        torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5, check_dtype=False)
        (mine,) = torch.autograd.grad(result.sum(), leaf)
        torch.testing.assert_close(mine, grad, rtol=1e-5, atol=1e-5, check_dtype=False)
        if name == "channels_last":
            assert mine.stride() == leaf.stride()


def test_logits_of_two_and_of_five_axes_and_several_blocks(monkeypatch) -> None:
    for shape in ((5, 3), (700, 3), (2, 3, 2, 3, 4), (3, 3, 290)):
        z, t = logits(*shape, seed=8).requires_grad_(), logits(*shape, seed=9)
        for reduction in ("mean", "none"):
            result, stats = fuzzy_positive_loss(z, t, reduction=reduction, return_stats=True)
            wanted, expected = oracle(
                monkeypatch, fuzzy_positive_loss, z.double(), t.double(), reduction=reduction, return_stats=True
            )
            torch.testing.assert_close(result, wanted, rtol=1e-5, atol=1e-5, check_dtype=False)
            for name in stats:
                torch.testing.assert_close(stats[name], expected[name], rtol=1e-6, atol=1e-6, check_dtype=False)
            (mine,) = torch.autograd.grad(result.sum(), z, retain_graph=True)
            (grad,) = torch.autograd.grad(wanted.sum(), z)
            torch.testing.assert_close(mine, grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["bool", "weights", "nothing"])
def test_valid_pixels_and_thresholds_of_every_kind(monkeypatch, kind: str) -> None:
    t = logits(2, 6, 5, 8, seed=10, scale=1.0)
    draw = torch.rand(2, 5, 8, generator=torch.Generator().manual_seed(4)).to(DEVICE)
    by_pixel = 0.5 + draw / 2
    for threshold in (torch.tensor(0.7), torch.tensor(0.7, device=DEVICE, dtype=torch.float64), by_pixel):
        limit = threshold.to(DEVICE, torch.float32)
        trusted = sure(t, limit)
        valid = {"bool": trusted & (draw > 0.3), "weights": draw * trusted, "nothing": draw < 0}[kind]
        same = torch.where(trusted.unsqueeze(1), t, 0.0)
        compare(monkeypatch, logits(*t.shape, seed=11), same, valid=valid, threshold=threshold, k_cap=4)


@pytest.mark.parametrize("balance", [False, True])
def test_the_hard_loss(monkeypatch, balance: bool) -> None:
    for classes in (2, 40):
        t = teachers(classes, width=16)[:, :, :4]
        z = logits(*t.shape, seed=12).requires_grad_()
        valid = sure(t, 0.9)
        options = {"size": t.shape[2:], "valid": valid, "balance": balance, "maps": True}
        result = PIXEL_LOSSES["hard"](z, t, **options)
        exact = z.detach().double().requires_grad_()
        expected = oracle(monkeypatch, PIXEL_LOSSES["hard"], exact, t.double(), **options)
        torch.testing.assert_close(result.loss, expected.loss, rtol=1e-5, atol=1e-5, check_dtype=False)
        assert torch.equal(result.label, expected.label)
        assert torch.equal(result.k, expected.k)
        for name, value in expected.stats.items():
            torch.testing.assert_close(result.stats[name], value, rtol=1e-5, atol=1e-6, check_dtype=False)
        grads = [torch.autograd.grad(masked_mean(x.loss, valid), side) for x, side in ((result, z), (expected, exact))]
        torch.testing.assert_close(grads[0][0], grads[1][0], rtol=1e-5, atol=1e-7, check_dtype=False)


# Logits of another size than the loss, and mixed ones.


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize(
    ("small", "size"), [((3, 5), (9, 17)), ((3, 4), (3, 7)), ((5, 8), (3, 5)), ((1, 1), (3, 4)), ((1, 6), (5, 1))]
)
def test_raised_logits(monkeypatch, small: tuple[int, int], size: tuple[int, int], aligned: bool) -> None:
    z, t = logits(1, 3, *small, seed=13).requires_grad_(), logits(1, 3, *small, seed=14)
    exact = z.detach().double().requires_grad_()
    upstream = torch.rand(1, *size, generator=torch.Generator().manual_seed(5)).to(DEVICE)
    for rule, reduction, valid in (("n-1", "none", None), ("continuous", "none", None), ("n-1", "mean", upstream)):
        options = {"rule": rule, "reduction": reduction, "size": size, "align_corners": aligned, "valid": valid}
        result = fuzzy_positive_loss(z, t, **options)
        expected = oracle(monkeypatch, fuzzy_positive_loss, exact, t.double(), **options)
        torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5, check_dtype=False)
        factor = upstream if reduction == "none" else torch.tensor(7.0, device=DEVICE)
        mine = torch.autograd.grad((result * factor).sum(), z)[0]
        grad = torch.autograd.grad((expected * factor).sum(), exact)[0]
        torch.testing.assert_close(mine, grad, rtol=1e-5, atol=1e-5, check_dtype=False)


def test_more_low_resolution_logits_than_one_program_takes(monkeypatch) -> None:
    """A row of 70 logits, of which a program computes about 30; 3 logits from 512 columns; and 33 classes."""
    for small, size, classes in (((1, 70), (1, 300), 2), ((2, 3), (3, 500), 2), ((1, 2), (1, 4), 33)):
        z, t = logits(1, classes, *small, seed=15).requires_grad_(), logits(1, classes, *small, seed=16)
        t[:, -1] += 4  # the last of 33 is positive and the first is not
        exact = z.detach().double().requires_grad_()
        result = fuzzy_positive_loss(z, t, size=size, reduction="none")
        expected = oracle(monkeypatch, fuzzy_positive_loss, exact, t.double(), size=size, reduction="none")
        mine = torch.autograd.grad(result.sum(), z, retain_graph=True)[0]
        grad = torch.autograd.grad(expected.sum(), exact)[0]
        torch.testing.assert_close(mine, grad, rtol=1e-5, atol=3e-5, check_dtype=False)
        assert torch.equal(mine, torch.autograd.grad(result.sum(), z)[0])


@pytest.mark.parametrize("name", ["fuzzy", "hard"])
@pytest.mark.parametrize("sizes", [((7, 9), (7, 9), (7, 9)), ((3, 4), (3, 4), (3, 4)), ((7, 9), (3, 4), (4, 3))])
def test_mixed_teachers(monkeypatch, name: str, sizes) -> None:
    z = logits(2, 5, *sizes[0], seed=17).requires_grad_()
    a, b = logits(2, 5, *sizes[1], seed=18), logits(2, 5, *sizes[2], seed=19)
    mask = torch.zeros(2, 7, 9, dtype=torch.bool, device=DEVICE)
    mask[0, 2:6, 3:8] = True
    valid = logits(2, 7, 9, seed=20) > -1.5
    options = {"size": (7, 9), "valid": valid, "maps": True}
    result = PIXEL_LOSSES[name](z, Mixed(a, b, mask), **options)
    exact = z.detach().double().requires_grad_()
    expected = oracle(monkeypatch, PIXEL_LOSSES[name], exact, Mixed(a.double(), b.double(), mask), **options)
    for key in ("loss", "k", "weight", "confidence", "label"):
        torch.testing.assert_close(
            getattr(result, key), getattr(expected, key), rtol=1e-5, atol=1e-5, check_dtype=False
        )
    grads = [torch.autograd.grad(masked_mean(x.loss, valid), side) for x, side in ((result, z), (expected, exact))]
    torch.testing.assert_close(grads[0][0], grads[1][0], rtol=1e-5, atol=1e-6, check_dtype=False)


def test_two_mixed_teachers_of_two_precisions(monkeypatch) -> None:
    z, a, b = (logits(1, 4, 5, 6, seed=seed) for seed in (21, 22, 23))
    mask = logits(1, 5, 6, seed=24) > 0
    result = fuzzy_positive_loss(z, Mixed(a.bfloat16(), b, mask), size=(5, 6))
    exact = Mixed(a.bfloat16().double(), b.double(), mask)
    expected = oracle(monkeypatch, fuzzy_positive_loss, z.double(), exact, size=(5, 6))
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=0, check_dtype=False)


# Pitfalls of fast forms.


def test_rank_1_is_decided_by_comparison() -> None:
    z, t = logits(1, 21, 4, 8, seed=25).requires_grad_(), torch.zeros(1, 21, 4, 8, device=DEVICE)
    t[:, 4] = 40.0
    result, stats = fuzzy_positive_loss(z, t, return_stats=True)
    assert stats["k_histogram"][0] == 1
    assert stats["label_histogram"][4] == 1
    expected = F.cross_entropy(z, t.argmax(1))
    torch.testing.assert_close(result, expected)
    torch.testing.assert_close(torch.autograd.grad(result, z)[0], torch.autograd.grad(expected, z)[0])


@pytest.mark.parametrize("rule", ["n-1", "n", "continuous"])
def test_the_largest_k_is_c_minus_1_whatever_the_sums_round_to(rule: str) -> None:
    t = torch.cat([logits(1, 21, 8, 8, seed=26, scale=scale) for scale in (0.0, 0.3, 6.0, 20.0)], 2)
    _, stats = fuzzy_positive_loss(t, t, threshold=1.0, return_stats=True, rule=rule)
    assert stats["k_histogram"][-1] == 1


@pytest.mark.parametrize("rule", ["n-1", "continuous"])
def test_weights_of_uniform_pixels_are_never_below_zero(rule: str) -> None:
    """With twelve equal classes the mean of the positives rounds to less than the best negative."""
    for classes in (3, 12):
        z, t = logits(1, classes, 8, 8), logits(1, classes, 8, 8, scale=1e-7)
        t[:, :, :4] = 0
        result = fuzzy_positive_loss(z, t, reduction="none", rule=rule)
        assert (result >= 0).all()
        assert (result < 1e-3).all()


@pytest.mark.parametrize("far", [80.0, 1e4])
@pytest.mark.parametrize("rule", ["n-1", "continuous"])
def test_logits_far_apart_stay_exact(monkeypatch, far: float, rule: str) -> None:
    z, t = far * logits(1, 7, 8, 8, seed=27, scale=1.0).sign(), logits(1, 7, 8, 8, seed=28, scale=1.0)
    compare(monkeypatch, z, t, valid=sure(t, 0.9), rule=rule)


@pytest.mark.parametrize("kind", ["fuzzy", "hard"])
@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("size", [(4, 5), (9, 12)])
def test_a_nan_stays_at_its_pixel_and_reaches_its_loss(monkeypatch, kind: str, side: int, size) -> None:
    valid = torch.ones(1, *size, dtype=torch.bool, device=DEVICE)
    for channel in (0, 3, slice(None)):
        both = [logits(1, 5, 4, 5, seed=29), logits(1, 5, 4, 5, seed=30)]
        both[side][0, channel, 2, 1] = torch.nan
        result = PIXEL_LOSSES[kind](*both, size=size, valid=valid).loss
        expected = oracle(monkeypatch, PIXEL_LOSSES[kind], *both, size=size, valid=valid).loss
        assert torch.equal(result.isnan(), expected.isnan())
        assert 0 < int(result.isnan().sum()) < result.numel()


@pytest.mark.parametrize("rule", RULES)
def test_a_nan_reaches_the_mean_also_where_nothing_is_valid(rule) -> None:
    valid = torch.zeros(1, 4, 5, dtype=torch.bool, device=DEVICE)
    for side in (0, 1):
        both = [logits(1, 5, 4, 5, seed=31), logits(1, 5, 4, 5, seed=32)]
        assert fuzzy_positive_loss(*both, valid=valid, rule=rule) == 0
        both[side][0, 2, 1, 1] = torch.nan
        for weight in ("concave", "none"):
            assert fuzzy_positive_loss(*both, valid=valid, rule=rule, weight=weight).isnan()


def test_sums_over_programs_are_exact() -> None:
    """Two thousand rows of a table: in fp32 one by one they would be off in the sixth digit."""
    from fuzzyseg.losses.kernels.cuda.forward import finish_kernel

    table = torch.rand(2500, 5, generator=torch.Generator().manual_seed(6)).to(DEVICE)
    counts = torch.randint(257, (2500, 2, 32), generator=torch.Generator().manual_seed(7), dtype=torch.int16).to(DEVICE)
    sums, mean = torch.empty(5, dtype=torch.float64, device=DEVICE), torch.empty((), device=DEVICE)
    labels, k = torch.empty(3, dtype=torch.float64, device=DEVICE), torch.empty(2, dtype=torch.float64, device=DEVICE)
    for hard in (False, True):
        finish_kernel[(5 + 3 + 2,)](
            table, counts, sums, labels, k, mean, 2500, C=3, BINS=32, HARD=hard, MEAN=True, BLOCK=1024
        )
        torch.testing.assert_close(sums, table.double().sum(0), rtol=1e-12, atol=0)
        assert torch.equal(labels, counts[:, 0, :3].double().sum(0))
        expected = torch.stack([sums[0], sums[0] * 0]) if hard else counts[:, 1, :2].double().sum(0)
        assert torch.equal(k, expected)
        torch.testing.assert_close(mean, (sums[1] / sums[0]).float())


# The graph around the loss.


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("size", [None, (7, 8)])
def test_a_graph_may_be_kept_and_gone_through_again(reduction: str, size) -> None:
    z, t = logits(1, 4, 5, 5, seed=33).requires_grad_(), logits(1, 4, 5, 5, seed=34)
    loss = (fuzzy_positive_loss(z, t, reduction=reduction, size=size) * 3).sum()
    first = torch.autograd.grad(loss, z, retain_graph=True)[0].clone()
    second = torch.autograd.grad(loss * 2, z, retain_graph=True)[0].clone()
    third = torch.autograd.grad(loss, z)[0]
    torch.testing.assert_close(second, 2 * first)
    torch.testing.assert_close(third, first)
    assert first.abs().sum() > 0


def test_the_gradient_of_the_mean_is_multiplied_where_it_stands_only_if_need_be(monkeypatch) -> None:
    from fuzzyseg.losses.kernels.cuda import launch

    monkeypatch.setattr(launch, "ELEMENTS", 64)
    factors: list[Tensor] = []
    multiply = launch.multiply
    monkeypatch.setattr(launch, "multiply", lambda grad, factor: factors.append(factor) or multiply(grad, factor))
    grads = []
    for factor in (1.0, -2.5):
        z, t = logits(1, 4, 6, 6, seed=35).requires_grad_(), logits(1, 4, 6, 6, seed=36)
        grads += torch.autograd.grad(fuzzy_positive_loss(z, t) * factor, z)
    assert [float(factor) for factor in factors] == [1.0, -2.5]
    torch.testing.assert_close(grads[1], -2.5 * grads[0])


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("size", [None, (7, 8)])
def test_the_teacher_is_not_kept_alive(reduction: str, size) -> None:
    z, t = logits(1, 4, 5, 5, seed=37).requires_grad_(), logits(1, 4, 5, 5, seed=38)
    loss = fuzzy_positive_loss(z, t, reduction=reduction, size=size)
    alive = weakref.ref(t)
    del t
    gc.collect()
    assert alive() is None
    loss.sum().backward()


def map_inputs(**changes) -> LossInputs:
    """Inputs of the map form with 4 classes."""
    z = logits(2, 4, 4, 5).to(memory_format=torch.channels_last)
    options = FPLOptions("concave", 50.0, 3, "n-1", "paper")
    inputs = LossInputs(
        z, z, None, None, None, torch.tensor(0.9), (4, 5), True, options,
        mean=False, gradient=True, statistics=False, maps=False, cross_entropy=False,
    )  # fmt: skip
    return replace(inputs, **changes)


def test_the_state_between_the_passes_is_small_and_empty_outputs_have_its_shape() -> None:
    """16 bytes and a bit for each class, or 8 for raised logits; of the mean nothing but the gradient."""
    from fuzzyseg.losses.kernels.cuda import launch

    continuous = FPLOptions("concave", 50.0, 3, "continuous", "paper")
    words = {}
    for name, changes in {
        "map": {},
        "raised": {"size": (5, 6)},
        "raised mean": {"size": (5, 6), "mean": True},
        "continuous": {"options": continuous},
        "mean": {"mean": True, "statistics": True, "maps": True},
        "no gradient": {"gradient": False},
    }.items():
        inputs = map_inputs(**changes)
        result, empty = launch.run(inputs), launch.empty_outputs(inputs)
        for a, b in zip(result.tensors(), empty.tensors(), strict=True):
            assert (a.shape, a.stride(), a.dtype) == (b.shape, b.stride(), b.dtype)
        words[name] = result.state.numel() / result.loss.numel()
        assert (result.grad.numel() > 0) == (name == "mean")
    assert words == {"map": 5, "raised": 3, "raised mean": 3 * 60, "continuous": 7, "mean": 0, "no gradient": 0}


@pytest.mark.slow
def test_a_whole_step_compiles_without_a_break() -> None:
    network = nn.Conv2d(3, 4, 3, padding=1, stride=2).to(DEVICE)
    fuzzy, hard = PixelLossModule(PIXEL_LOSSES["fuzzy"], {}), PixelLossModule(PIXEL_LOSSES["hard"], {})

    def step(image: Tensor, a: Tensor, b: Tensor, mask: Tensor, valid: Tensor) -> Tensor:
        z = network(image)
        terms = fuzzy(z, Mixed(a, b, mask), size=(8, 8), valid=valid, progress=(0, 1), maps=True)
        other = hard(z, a, size=(8, 8), valid=valid, progress=(0, 1))
        whole = fuzzy_positive_loss(z, a) + fuzzy_positive_loss(z, a, reduction="none", threshold=0.8).square().mean()
        return masked_mean(terms.loss, valid) + masked_mean(other.loss, valid) + whole + terms.stats["weight"]

    arguments = (
        logits(1, 3, 8, 8, seed=39),
        logits(1, 4, 4, 4, seed=40),
        logits(1, 4, 4, 4, seed=41),
        logits(1, 8, 8, seed=42) > 0,
        logits(1, 8, 8, seed=43) > -1,
    )
    fuzzy, hard = fuzzy.to(DEVICE), hard.to(DEVICE)
    expected = step(*arguments)
    result = torch.compile(step, fullgraph=True, backend="aot_eager")(*arguments)
    torch.testing.assert_close(result, expected)
    weights = list(network.parameters())
    torch.testing.assert_close(torch.autograd.grad(result, weights), torch.autograd.grad(expected, weights))


def test_it_is_chosen_only_on_request(monkeypatch) -> None:
    z = logits(1, 4, 3, 3)
    assert choose(z, z) == "triton"
    assert choose(z.double(), z.double()) == "chunked"
    assert choose(z, z.double()) == "reference"
    monkeypatch.delenv("FUZZYSEG_KERNEL")
    assert choose(z, z) == "chunked"
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with FakeTensorMode():  # a tensor on a GPU, also where there is none
        on_gpu = torch.empty(1, 4, 3, 3, device="cuda")
        assert choose(on_gpu, on_gpu) == "chunked"
        monkeypatch.setenv("FUZZYSEG_KERNEL", "triton")
        assert choose(on_gpu, on_gpu) == "triton"
    assert choose(z, z) == ("triton" if DEVICE == "cuda" else "chunked")


def test_sums_and_counts_cover_all_pixels() -> None:
    from fuzzyseg.losses.kernels.cuda import launch

    result = launch.run(map_inputs(statistics=True, cross_entropy=True))
    assert result.sums[0] == 40
    assert result.k_counts.sum() == 40
    assert result.label_counts.sum() == 40
    torch.testing.assert_close(result.sums[1], result.loss.double().sum(), rtol=1e-6, atol=0)
    expected = F.cross_entropy(*(lambda z: (z, z.argmax(1)))(logits(2, 4, 4, 5)), reduction="sum")
    torch.testing.assert_close(result.sums[4], expected.double(), rtol=1e-6, atol=0)
