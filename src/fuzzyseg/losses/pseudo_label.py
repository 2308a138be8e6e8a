"""Pseudo-label losses, pixel by pixel: hard, soft, thresholded and fuzzy, under one signature.

Each is called `(student_logits, teacher, *, size, valid, threshold, maps=False, **options) -> PixelLoss`: logits of the
student, (B,C,h,w), and of the teacher, (B,C,h,w) or `Mixed`, are brought to `size` = (H,W) with align_corners, as in
the networks' own heads; valid (B,H,W) is bool or non-negative weights. The teacher is detached inside; all is computed
in fp32 (fp64 stays). A NaN in either side's logits is a NaN in the loss of that pixel, if it is valid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Unpack

import torch
from torch import Tensor
from torch.nn import functional as F

from fuzzyseg.losses.arguments import at_one_size, check_map, check_pair, check_threshold, full_precision
from fuzzyseg.losses.fpl.options import FPLKeywords, FPLOptions
from fuzzyseg.losses.fpl.reference import FuzzyMap, balance_factor, fuzzy_positive_map, statistics
from fuzzyseg.losses.kernels.chunked import LossOutputs
from fuzzyseg.losses.kernels.custom_op import choose, pseudo_label
from fuzzyseg.losses.reduction import histogram, local_mean
from fuzzyseg.ops.mix import Mixed


@dataclass
class PixelLoss:
    """Maps (B,H,W): `loss`, with gradient and 0 where invalid, and detached and only where asked for, the others.

    k: positive classes. weight: of the loss. confidence: the teacher's largest probability; label: its class. stats:
    detached, over the valid pixels of this process: confidence, label_histogram (C,); where there is a weight, weight;
    over a set also k_histogram (C-1,), the share of pixels with K = 1, 2, ...; and balance (the factor) where it is on.
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
    threshold: float | Tensor = 0.9,
    maps: bool = False,
    balance: bool = False,
    **keywords: Unpack[FPLKeywords],
) -> PixelLoss:
    """Cross entropy on the teacher's most probable class; every valid pixel counts.

    balance is a control for what FPL gains by its scale alone: the loss is multiplied by the factor that `fuzzy` with
    the same options and `balance` is multiplied by. Threshold and options are used for this factor only.
    """
    check_map("valid", valid, check_pair(student_logits, teacher, size), student_logits.device)
    options = FPLOptions(**keywords)
    if balance:
        check_threshold(threshold, valid.shape, student_logits.device)
    form = choose(student_logits, teacher)
    with full_precision(student_logits.device):
        if form == "reference":
            return _hard(student_logits, teacher, size, valid, threshold, options if balance else None, maps=maps)
        found = pseudo_label(student_logits, teacher, None, form=form, size=size, valid=valid, maps=maps)
        loss, stats = found.loss, found.statistics()
        stats = {"confidence": stats["mean_confidence"], "label_histogram": stats["label_histogram"]}
        if balance:
            with torch.no_grad():
                stats["balance"] = pseudo_label(
                    student_logits,
                    teacher,
                    options,
                    form=form,
                    threshold=threshold,
                    size=size,
                    valid=valid,
                    statistics=False,
                    cross_entropy=True,
                ).balance()
            loss = loss * stats["balance"]
        return _pixel_loss(found, loss, valid, stats, maps=maps)


def _hard(
    student_logits: Tensor,
    teacher: Tensor | Mixed,
    size: Sequence[int],
    valid: Tensor,
    threshold: float | Tensor,
    options: FPLOptions | None,
    *,
    maps: bool,
) -> PixelLoss:
    """`hard` in the readable form; balanced if there are options."""
    student, target = at_one_size(student_logits, teacher, size)
    with torch.no_grad():
        probability, label = torch.softmax(target, 1).max(1)
    loss = F.cross_entropy(student, label, reduction="none")
    stats = {}
    if options is not None:
        with torch.no_grad():
            fuzzy_loss = fuzzy_positive_map(student, target, threshold, options).loss
        stats["balance"] = balance_factor(fuzzy_loss, student, label, valid)
        loss = loss * stats["balance"]
    found = _one_label(loss, probability, label, valid, student.shape[1], maps)
    found.stats.update(stats)
    return found


def soft(
    student_logits: Tensor,
    teacher: Tensor | Mixed,
    *,
    size: Sequence[int],
    valid: Tensor,
    threshold: float | Tensor = 0.9,
    maps: bool = False,
) -> PixelLoss:
    """Cross entropy against the teacher's probabilities, -sum p log softmax(z). The threshold is not used."""
    with full_precision(student_logits.device):
        student, target = both_sides(student_logits, teacher, size, valid)
        p = torch.softmax(target, 1)
        with torch.no_grad():
            probability, label = p.max(1)
        loss = -(p * torch.log_softmax(student, 1)).sum(1)
        return _one_label(loss, probability, label, valid, student.shape[1], maps)


def thresholded(
    student_logits: Tensor,
    teacher: Tensor | Mixed,
    *,
    size: Sequence[int],
    valid: Tensor,
    threshold: float | Tensor = 0.9,
    maps: bool = False,
    confidence: float = 0.95,
) -> PixelLoss:
    """`hard` where the teacher's largest probability is at least `confidence`, in [0, 1]; 0 elsewhere.

    K. Sohn et al., "FixMatch", NeurIPS 2020: a pixel that is left out still counts in the mean, so that the term grows
    with the teacher's confidence. weight is 1 where a pixel takes part, its mean the share that does. The threshold T,
    which bounds a sum of probabilities, is not used.
    """
    if not 0 <= confidence <= 1:
        raise ValueError(f"confidence: found {confidence!r}, expected a probability in [0, 1]")
    with full_precision(student_logits.device):
        student, target = both_sides(student_logits, teacher, size, valid)
        with torch.no_grad():
            probability, label = torch.softmax(target, 1).max(1)
            kept = (probability >= confidence).to(probability.dtype)
        loss = kept * F.cross_entropy(student, label, reduction="none")
        found = _one_label(loss, probability, label, valid, student.shape[1], maps)
        found.stats["weight"] = local_mean(kept, valid)
        if maps:
            found.weight = kept
        return found


def fuzzy(
    student_logits: Tensor,
    teacher: Tensor | Mixed,
    *,
    size: Sequence[int],
    valid: Tensor,
    threshold: float | Tensor = 0.9,
    maps: bool = False,
    balance: bool = False,
    **keywords: Unpack[FPLKeywords],
) -> PixelLoss:
    """Fuzzy Positive Learning (`fuzzyseg.losses.fpl.reference`). `balance` is taken per process, as published.

    With k_cap = 1 it is `hard` times FPL's weight for K = 1.
    """
    options = FPLOptions(**keywords)
    check_map("valid", valid, check_pair(student_logits, teacher, size), student_logits.device)
    check_threshold(threshold, valid.shape, student_logits.device)
    form = choose(student_logits, teacher)
    with full_precision(student_logits.device):
        if form == "reference":
            student, target = at_one_size(student_logits, teacher, size)
            by_pixel = fuzzy_positive_map(student, target, threshold, options)
            return over_set(by_pixel, student, valid, balance=balance, maps=maps)
        found = pseudo_label(
            student_logits,
            teacher,
            options,
            form=form,
            threshold=threshold,
            size=size,
            valid=valid,
            maps=maps,
            cross_entropy=balance,
        )
        stats = {name.removeprefix("mean_"): value for name, value in found.statistics().items()}
        loss = found.loss
        if balance:
            stats["balance"] = found.balance()
            loss = loss * stats["balance"]
        return _pixel_loss(found, loss, valid, stats, maps=maps)


def _pixel_loss(
    found: LossOutputs | FuzzyMap, loss: Tensor, valid: Tensor, stats: dict[str, Tensor], *, maps: bool
) -> PixelLoss:
    """The result with a loss of 0 where invalid."""
    loss = torch.where(valid > 0, loss, 0)
    if not maps:
        return PixelLoss(loss, stats=stats)
    return PixelLoss(loss, found.k, found.weight, found.confidence, found.label, stats)


def over_set(found: FuzzyMap, student: Tensor, valid: Tensor, *, balance: bool, maps: bool) -> PixelLoss:
    """The result of a loss over a fuzzy set: its statistics, its scale, 0 where invalid."""
    stats = {name.removeprefix("mean_"): value for name, value in statistics(found, valid, student.shape[1]).items()}
    loss = found.loss
    if balance:
        stats["balance"] = balance_factor(loss, student, found.label, valid)
        loss = loss * stats["balance"]
    return _pixel_loss(found, loss, valid, stats, maps=maps)


def both_sides(
    student_logits: Tensor, teacher: Tensor | Mixed, size: Sequence[int], valid: Tensor
) -> tuple[Tensor, Tensor]:
    """Student and detached teacher logits (B,C,H,W) at `size`."""
    check_map("valid", valid, check_pair(student_logits, teacher, size), student_logits.device)
    return at_one_size(student_logits, teacher, size)


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
