"""Fuzzy Positive Learning: assignment (Alg. 1), regularisation (Eq. 7), weight (Eq. 11, 16), in the readable form.

P. Qiao, Z. Wei, Y. Wang, Z. Wang, G. Song, F. Xu, X. Ji, C. Liu, J. Chen, "Fuzzy Positive Learning for Semi-supervised
Semantic Segmentation", CVPR 2023.

Where the teacher is unsure, a pixel gets not one pseudo label but the K most probable classes Y, and the student is
asked to rank all of Y above all other classes. z are the student's logits, p the teacher's probabilities in falling
order, S_n the sum of the first n, T the threshold. Logits are (N,C), (B,C,H,W) or (B,C,D,H,W); maps lack the axis C.
Everything is computed in fp32 (fp64 stays fp64), autocast or not. `variant="official"` is the published code: K at most
3, a class is kept while S < T (the paper: S <= T), and the weight's mean covers the first negative too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, overload

import torch
from torch import Tensor
from torch.nn import functional as F

from fuzzyseg.losses.inputs import (
    at_least_fp32,
    at_size,
    check_logits,
    check_map,
    check_pair,
    check_threshold,
    full_precision,
)
from fuzzyseg.losses.options import Reduction, Rule, Variant, WeightKind, check_options
from fuzzyseg.losses.reduction import histogram, local_mean
from fuzzyseg.losses.weight import weight_curve
from fuzzyseg.ops.mix import Mixed


class FuzzyMap(NamedTuple):
    """Maps (B,*spatial) of one application: `loss`, the weight times Eq. 7, has a gradient; the others have none.

    weight: Eq. 11 or 16. k: how many positives. confidence, label: the teacher's largest probability and its class.
    """

    loss: Tensor
    weight: Tensor
    k: Tensor
    confidence: Tensor
    label: Tensor


class _Assignment(NamedTuple):
    members: Tensor  # (B,C,*spatial) bool
    k: Tensor  # (B,1,*spatial) int64
    p: Tensor  # (B,C,*spatial) probabilities, falling
    total: Tensor  # (B,C,*spatial) their running sums
    label: Tensor  # (B,*spatial) int64


def _assign(
    teacher: Tensor, *, threshold: float | Tensor, k_cap: int | None, rule: Rule, variant: Variant
) -> _Assignment:
    """Alg. 1 by one sort; equal probabilities rank by class index, the lower first."""
    classes = teacher.shape[1]
    if isinstance(rule, int) and rule >= classes:
        raise ValueError(f"rule: found K = {rule} for {classes} classes, expected at most {classes - 1}")
    if k_cap is None and variant == "official":
        k_cap = 3
    cap = classes - 1 if k_cap is None else min(k_cap, classes - 1)
    p, order = torch.softmax(teacher, 1).sort(dim=1, descending=True, stable=True)
    total = p.cumsum(1)
    if isinstance(rule, int):
        k = torch.full_like(order[:, :1], min(rule, cap))
    else:
        t = threshold
        if isinstance(t, Tensor):
            t = t.to(p.dtype) if t.dim() == 0 else t.to(p.dtype).unsqueeze(1)
        # The first n with S_n > T, or C, is one more than the ranks below C with S <= T; Alg. 1 keeps one fewer.
        head = total[:, :-1]
        if variant == "official":
            within = head < t
        else:
            within = (head <= t) | (t >= 1)  # rounded sums may exceed T = 1
        k = within.sum(1, keepdim=True) + (1 if rule == "n" else 0)
        k = k.clamp(1, cap)
    ranks = torch.arange(classes, device=p.device).view(1, -1, *[1] * (p.dim() - 2))
    members = torch.zeros_like(order, dtype=torch.bool).scatter_(1, order, ranks < k)
    return _Assignment(members, k, p, total, order[:, 0])


def assign_fuzzy_positives(
    teacher_logits: Tensor,
    *,
    threshold: float | Tensor = 0.9,
    k_cap: int | None = None,
    rule: Rule = "n-1",
    variant: Variant = "paper",
) -> Tensor:
    """The fuzzy positive classes of every pixel, Alg. 1: bool, shaped like the logits, 1 to C-1 True at each pixel.

    teacher_logits: (N,C), (B,C,H,W) or (B,C,D,H,W), C >= 2. threshold: T, a number in (0, 1] or a tensor, 0-dim or one
    per pixel, whose values are not checked. k_cap: largest K; None is C-1 (`official`: 3). rule: `n-1`, Alg. 1, leaves
    out the class with which the sum passes T; `n` takes it in; a number is a fixed K. T = 1 gives C-1. Equal
    probabilities rank by class index, the lower first. Raises ValueError for wrong shapes and options.
    """
    check_options(k_cap=k_cap, rule=rule, variant=variant)
    check_logits("teacher_logits", teacher_logits)
    shape = (teacher_logits.shape[0], *teacher_logits.shape[2:])
    check_threshold(threshold, shape, teacher_logits.device)
    with torch.no_grad(), full_precision(teacher_logits.device):
        teacher = at_least_fp32(teacher_logits)
        return _assign(teacher, threshold=threshold, k_cap=k_cap, rule=rule, variant=variant).members


def fuzzy_positive_weight(
    teacher_logits: Tensor,
    members: Tensor,
    *,
    kind: WeightKind = "concave",
    a: float = 50.0,
    variant: Variant = "paper",
) -> Tensor:
    """The weight of every pixel, Eq. 11 and 16 (`weight_curve`): (B,*spatial) in [0, 1], without gradient.

    members: bool, shaped like the logits, at least one True and one False at each pixel. The mean m is over them;
    `official` counts the most probable class outside them too. Raises ValueError for wrong shapes and options.
    """
    check_options(weight=kind, variant=variant, a=a)
    check_logits("teacher_logits", teacher_logits)
    check_map("members", members, teacher_logits.shape, teacher_logits.device)
    if members.dtype != torch.bool:
        raise ValueError(f"members: found {members.dtype}, expected torch.bool")
    with torch.no_grad(), full_precision(teacher_logits.device):
        p = torch.softmax(at_least_fp32(teacher_logits), 1)
        inside = torch.where(members, p, 0).sum(1)
        q = torch.where(members, 0, p).amax(1)
        return _weight(inside, q, members.sum(1), kind=kind, a=a, variant=variant)


def _weight(inside: Tensor, q: Tensor, k: Tensor, *, kind: WeightKind, a: float, variant: Variant) -> Tensor:
    """`weight_curve` from the sum over the positives, the best negative and K."""
    m = inside / k if variant == "paper" else (inside + q) / (k + 1)
    return weight_curve(m, q, kind=kind, a=a)


def fuzzy_positive_regularisation(student: Tensor, members: Tensor) -> Tensor:
    """Eq. 7, log(1 + sum over Y of e^-z times sum outside Y of e^z): (B,*spatial) from (B,C,*spatial)."""
    a = _log_sum_exp(torch.where(members, -student, -torch.inf))
    b = _log_sum_exp(torch.where(members, -torch.inf, student))
    return F.softplus(a + b, threshold=50.0)  # above 50 the two are one number in fp64 too


def _log_sum_exp(values: Tensor) -> Tensor:
    """Over axis 1, as the largest value plus the cross entropy on its class.

    Unlike torch.logsumexp, whose backward takes values minus result, this keeps the gradient exact for values in the
    thousands, as cross entropy does.
    """
    largest = values.detach().max(1).indices  # on the CPU several times as fast as argmax
    return values.gather(1, largest.unsqueeze(1)).squeeze(1) + F.cross_entropy(values, largest, reduction="none")


def fuzzy_positive_map(
    student: Tensor,
    teacher: Tensor,
    *,
    threshold: float | Tensor,
    weight: WeightKind,
    a: float,
    k_cap: int | None,
    rule: Rule,
    variant: Variant,
) -> FuzzyMap:
    """Alg. 1, Eq. 7 and Eq. 11 pixel by pixel, from logits (B,C,*spatial) of one size in fp32 or fp64, unchecked."""
    with torch.no_grad():
        found = _assign(teacher, threshold=threshold, k_cap=k_cap, rule=rule, variant=variant)
        inside, q = found.total.gather(1, found.k - 1), found.p.gather(1, found.k)
        w = _weight(inside, q, found.k, kind=weight, a=a, variant=variant).squeeze(1)
    loss = w * fuzzy_positive_regularisation(student, found.members)
    return FuzzyMap(loss, w, found.k.squeeze(1), found.p[:, 0], found.label)


def balance_factor(loss: Tensor, student: Tensor, label: Tensor, valid: Tensor | None) -> Tensor:
    """What scales the mean of `loss` to that of the cross entropy on the pseudo label: 0-dim, without gradient.

    The published code does so, each process by itself. 1 where the mean is 0, or too small to divide by.
    """
    with torch.no_grad():
        hard = local_mean(F.cross_entropy(student, label, reduction="none"), valid)
        fuzzy = local_mean(loss, valid)
        return torch.where(fuzzy > 1e-30, hard / fuzzy, torch.ones_like(fuzzy))


@overload
def fuzzy_positive_loss(
    student_logits: Tensor,
    teacher_logits: Tensor | Mixed,
    *,
    threshold: float | Tensor = ...,
    weight: WeightKind = ...,
    k_cap: int | None = ...,
    rule: Rule = ...,
    valid: Tensor | None = ...,
    size: Sequence[int] | None = ...,
    align_corners: bool = ...,
    variant: Variant = ...,
    balance: bool = ...,
    reduction: Reduction = ...,
    return_stats: Literal[False] = ...,
) -> Tensor: ...


@overload
def fuzzy_positive_loss(
    student_logits: Tensor,
    teacher_logits: Tensor | Mixed,
    *,
    threshold: float | Tensor = ...,
    weight: WeightKind = ...,
    k_cap: int | None = ...,
    rule: Rule = ...,
    valid: Tensor | None = ...,
    size: Sequence[int] | None = ...,
    align_corners: bool = ...,
    variant: Variant = ...,
    balance: bool = ...,
    reduction: Reduction = ...,
    return_stats: Literal[True],
) -> tuple[Tensor, dict[str, Tensor]]: ...


def fuzzy_positive_loss(
    student_logits: Tensor,
    teacher_logits: Tensor | Mixed,
    *,
    threshold: float | Tensor = 0.9,
    weight: WeightKind = "concave",
    k_cap: int | None = None,
    rule: Rule = "n-1",
    valid: Tensor | None = None,
    size: Sequence[int] | None = None,
    align_corners: bool = False,
    variant: Variant = "paper",
    balance: bool = False,
    reduction: Reduction = "mean",
    return_stats: bool = False,
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    """The loss of Fuzzy Positive Learning: Eq. 7 over the classes of Alg. 1, times the weight of Eq. 11.

    student_logits, teacher_logits: (N,C), (B,C,H,W) or (B,C,D,H,W), C >= 2; the teacher gets no gradient and may be
    `Mixed(a, b, mask)`. threshold, k_cap, rule: see `assign_fuzzy_positives`; weight: see `weight_curve`, A = 50.
    valid: (B,*spatial), bool or non-negative weights. size: the spatial size to which both sides are interpolated
    first, with `align_corners`. balance: scale the result to the value of the cross entropy on the pseudo label.

    Returns the sum of loss times `valid` over the sum of `valid` (of this process; 0 where nothing is valid), or for
    reduction "none" the map (B,*spatial), 0 where `valid` is 0 and not multiplied by it elsewhere. With return_stats
    also a dict without gradient, over the valid pixels: k_histogram (C-1,), label_histogram (C,), mean_weight,
    mean_confidence, and balance (the factor) where that is on. A NaN anywhere in the logits, also where nothing is
    valid, gives a NaN: never a finite loss with a poisoned gradient. Raises ValueError for wrong shapes and options.
    """
    check_options(weight=weight, k_cap=k_cap, rule=rule, variant=variant, reduction=reduction)
    shape = check_pair(student_logits, teacher_logits, size)
    check_threshold(threshold, shape, student_logits.device)
    if valid is not None:
        check_map("valid", valid, shape, student_logits.device)
    with full_precision(student_logits.device):
        student = at_size(student_logits, size, align_corners=align_corners)
        with torch.no_grad():
            teacher = at_size(teacher_logits, size, align_corners=align_corners)
        maps = fuzzy_positive_map(
            student, teacher, threshold=threshold, weight=weight, a=50.0, k_cap=k_cap, rule=rule, variant=variant
        )
        stats = statistics(maps, valid, student.shape[1]) if return_stats else {}
        loss = maps.loss
        if balance:
            stats["balance"] = balance_factor(loss, student, maps.label, valid)
            loss = loss * stats["balance"]
        if reduction == "mean":
            loss = local_mean(loss, valid)
        elif valid is not None:
            loss = loss * (valid > 0)
    return (loss, stats) if return_stats else loss


def statistics(maps: FuzzyMap, valid: Tensor | None, classes: int) -> dict[str, Tensor]:
    """Over the valid pixels: k_histogram (C-1,), label_histogram (C,), mean_weight, mean_confidence; no gradient."""
    return {
        "k_histogram": histogram(maps.k - 1, valid, classes - 1),
        "label_histogram": histogram(maps.label, valid, classes),
        "mean_weight": local_mean(maps.weight, valid),
        "mean_confidence": local_mean(maps.confidence, valid),
    }
