"""Pseudo-label losses, pixel by pixel: hard, soft and fuzzy, under one signature.

Each is called `(student_logits, teacher, *, size, valid, threshold, maps=False, **options) -> PixelLoss`: logits of the
student, (B,C,h,w), and of the teacher, (B,C,h,w) or `Mixed`, are brought to `size` = (H,W) with align_corners, as in
the networks' own heads; valid (B,H,W) is bool or non-negative weights. The teacher is detached inside; all is computed
in fp32 (fp64 stays). A NaN in either side's logits is a NaN in the loss of that pixel, if it is valid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from fuzzyseg.losses.fuzzy import balance_factor, fuzzy_positive_map, statistics
from fuzzyseg.losses.inputs import at_size, check_map, check_pair, check_threshold, full_precision
from fuzzyseg.losses.options import Rule, Variant, WeightKind, check_options
from fuzzyseg.losses.reduction import histogram, local_mean
from fuzzyseg.ops.mix import Mixed


@dataclass
class PixelLoss:
    """Maps (B,H,W): `loss`, with gradient and 0 where invalid, and detached and only where asked for, the others.

    k: positive classes. weight: of the loss. confidence: the teacher's largest probability; label: its class. stats:
    detached, over the valid pixels of this process: confidence, label_histogram (C,); fuzzy also k_histogram (C-1,),
    the share of pixels with K = 1, 2, ..., weight, and balance (the factor) where that is on.
    """

    loss: Tensor
    k: Tensor | None = None
    weight: Tensor | None = None
    confidence: Tensor | None = None
    label: Tensor | None = None
    stats: dict[str, Tensor] = field(default_factory=dict)


def hard(
    student_logits: Tensor,
    teacher: Tensor | Mixed,
    *,
    size: Sequence[int],
    valid: Tensor,
    threshold: float | Tensor = 1.0,
    maps: bool = False,
) -> PixelLoss:
    """Cross entropy on the teacher's most probable class. The threshold is not used: every valid pixel counts."""
    with full_precision(student_logits.device):
        student, target = _both(student_logits, teacher, size, valid)
        with torch.no_grad():
            probability, label = torch.softmax(target, 1).max(1)
        loss = F.cross_entropy(student, label, reduction="none")
        return _one_label(loss, probability, label, valid, student.shape[1], maps)


def soft(
    student_logits: Tensor,
    teacher: Tensor | Mixed,
    *,
    size: Sequence[int],
    valid: Tensor,
    threshold: float | Tensor = 1.0,
    maps: bool = False,
) -> PixelLoss:
    """Cross entropy against the teacher's probabilities, -sum p log softmax(z). The threshold is not used."""
    with full_precision(student_logits.device):
        student, target = _both(student_logits, teacher, size, valid)
        p = torch.softmax(target, 1)
        with torch.no_grad():
            probability, label = p.max(1)
        loss = -(p * torch.log_softmax(student, 1)).sum(1)
        return _one_label(loss, probability, label, valid, student.shape[1], maps)


def fuzzy(
    student_logits: Tensor,
    teacher: Tensor | Mixed,
    *,
    size: Sequence[int],
    valid: Tensor,
    threshold: float | Tensor = 0.9,
    maps: bool = False,
    weight: WeightKind = "concave",
    a: float = 50.0,
    k_cap: int | None = None,
    rule: Rule = "n-1",
    variant: Variant = "paper",
    balance: bool = False,
) -> PixelLoss:
    """Fuzzy Positive Learning (`fuzzyseg.losses.fuzzy`). The scale of `balance` is taken per process, as published."""
    check_options(weight=weight, k_cap=k_cap, rule=rule, variant=variant, a=a)
    with full_precision(student_logits.device):
        student, target = _both(student_logits, teacher, size, valid)
        check_threshold(threshold, valid.shape, student.device)
        found = fuzzy_positive_map(
            student, target, threshold=threshold, weight=weight, a=a, k_cap=k_cap, rule=rule, variant=variant
        )
        stats = {
            name.removeprefix("mean_"): value for name, value in statistics(found, valid, student.shape[1]).items()
        }
        loss = found.loss
        if balance:
            stats["balance"] = balance_factor(loss, student, found.label, valid)
            loss = loss * stats["balance"]
        loss = torch.where(valid > 0, loss, 0)
    if not maps:
        return PixelLoss(loss, stats=stats)
    return PixelLoss(loss, found.k, found.weight, found.confidence, found.label, stats)


def _both(student_logits: Tensor, teacher: Tensor | Mixed, size: Sequence[int], valid: Tensor) -> tuple[Tensor, Tensor]:
    """Student and detached teacher logits (B,C,H,W) at `size`."""
    check_map("valid", valid, check_pair(student_logits, teacher, size), student_logits.device)
    student = at_size(student_logits, size)
    with torch.no_grad():
        return student, at_size(teacher, size)


def _one_label(loss: Tensor, confidence: Tensor, label: Tensor, valid: Tensor, classes: int, maps: bool) -> PixelLoss:
    """The result of a loss with one target per pixel; a NaN of the teacher reaches the loss."""
    loss = torch.where(valid > 0, loss + (confidence - confidence), 0)
    stats = {
        "confidence": local_mean(confidence, valid),
        "label_histogram": histogram(label, valid, classes),
    }
    if not maps:
        return PixelLoss(loss, stats=stats)
    return PixelLoss(loss, torch.ones_like(label), torch.ones_like(loss), confidence, label, stats)
