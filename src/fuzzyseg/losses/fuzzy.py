"""Fuzzy Positive Learning: assignment (Alg. 1), regularisation (Eq. 7), weight (Eq. 11, 16), in the readable form.

P. Qiao, Z. Wei, Y. Wang, Z. Wang, G. Song, F. Xu, X. Ji, C. Liu, J. Chen, "Fuzzy Positive Learning for Semi-supervised
Semantic Segmentation", CVPR 2023.

`fuzzy_positive_loss` computes it by one of the forms of `fuzzyseg.losses.kernels`, all within rounding of this one.

Where the teacher is unsure, a pixel gets not one pseudo label but the K most probable classes Y, and the student is
asked to rank all of Y above all other classes. z are the student's logits, p the teacher's probabilities in falling
order, S_n the sum of the first n, T the threshold. Logits are (N,C), (B,C,H,W) or (B,C,D,H,W); maps lack the axis C.
Everything is computed in fp32 (fp64 stays fp64), autocast or not. `variant="official"` is the published code: K at most
3, a class is kept while S < T (the paper: S <= T), and the weight's mean covers the first negative too.
`rule="continuous"` is ours: the class with which the sum passes T is positive in part (`fuzzy_membership`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, overload

import torch
from torch import Tensor
from torch.nn import functional as F

from fuzzyseg.losses.arguments import at_one_size, check_map, check_pair, check_threshold, full_precision
from fuzzyseg.losses.fpl.assignment import assign
from fuzzyseg.losses.fpl.options import Reduction, Rule, Variant, WeightKind, check_options
from fuzzyseg.losses.fpl.regularisation import fuzzy_positive_regularisation
from fuzzyseg.losses.fpl.weight import assignment_weight
from fuzzyseg.losses.kernels import choose, pseudo_label
from fuzzyseg.losses.reduction import histogram, local_mean
from fuzzyseg.ops.mix import Mixed


class FuzzyMap(NamedTuple):
    """Maps (B,*spatial) of one application: `loss`, the weight times Eq. 7, has a gradient; the others have none.

    weight: Eq. 11 or 16. k: how many positives, with the one that is positive in part under the continuous rule.
    confidence, label: the teacher's largest probability and its class.
    """

    loss: Tensor
    weight: Tensor
    k: Tensor
    confidence: Tensor
    label: Tensor


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
        found = assign(teacher, threshold=threshold, k_cap=k_cap, rule=rule, variant=variant)
        w = assignment_weight(found, kind=weight, a=a, variant=variant).squeeze(1)
    loss = w * fuzzy_positive_regularisation(student, found.membership())
    return FuzzyMap(loss, w, found.positives().squeeze(1), found.p[:, 0], found.order[:, 0])


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
    form = choose(student_logits, teacher_logits)
    options: dict[str, Any] = {"weight": weight, "k_cap": k_cap, "rule": rule, "variant": variant}
    with full_precision(student_logits.device):
        if form == "reference":
            student, teacher = at_one_size(student_logits, teacher_logits, size, align_corners=align_corners)
            maps = fuzzy_positive_map(student, teacher, threshold=threshold, a=50.0, **options)
            stats = statistics(maps, valid, student.shape[1]) if return_stats else {}
            loss = local_mean(maps.loss, valid) if reduction == "mean" else maps.loss
            factor = balance_factor(maps.loss, student, maps.label, valid) if balance else None
        else:
            options.update(size=size, align_corners=align_corners, statistics=return_stats, cross_entropy=balance)
            # The mean's gradient is written before that of a GradScaler arrives: in fp16 much of it would be 0.
            mean = reduction == "mean" and student_logits.dtype != torch.float16
            options.update(threshold=threshold, valid=valid, mean=mean)
            found = pseudo_label(student_logits, teacher_logits, form=form, kind="fuzzy", **options)
            stats = found.statistics() if return_stats else {}
            loss, factor = found.loss, found.balance() if balance else None
            if reduction == "mean" and not mean:
                loss = local_mean(loss, valid)
        if factor is not None:
            stats["balance"] = factor
            loss = loss * factor
        if reduction == "none" and valid is not None:
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
