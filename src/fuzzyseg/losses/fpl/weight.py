"""Pixel weights: the curves of Eq. 11 and 16 of the FPL paper, and their application to teacher logits."""

import torch
from torch import Tensor

from fuzzyseg.losses.base import at_least_fp32, check_logits, check_map, full_precision
from fuzzyseg.losses.fpl.assignment import Assignment
from fuzzyseg.losses.fpl.options import WEIGHT_CURVES, FPLOptions, Variant, WeightKind


def weight_curve(m: Tensor, q: Tensor, *, kind: WeightKind = "concave", a: float = 50.0) -> Tensor:
    """Return the weight, which falls from 1 at q = 0 to 0 at q >= m.

    m > 0: mean probability of the positives. q: largest probability of a negative.

    `concave` is Eq. 11, log(1 + A (m - q)) / log(1 + A m). Eq. 16 has `linear`, (m - q) / m, and `convex`, (m - q) /
    (m + 4 q). `convex1`, (m - q) / (m + q), is used in two of the published releases. `none` is 1.
    """
    return WEIGHT_CURVES[FPLOptions(kind, a).weight](m, q, a)


def fuzzy_positive_weight(
    teacher_logits: Tensor,
    members: Tensor,
    *,
    kind: WeightKind = "concave",
    a: float = 50.0,
    variant: Variant = "paper",
) -> Tensor:
    """Compute each pixel's weight by Eq. 11 or 16 (`weight_curve`): (B,*spatial) in [0, 1], without gradient.

    members: shaped like the logits; bool with at least one True and one False per pixel, or memberships in [0, 1] with
    at most one fractional class c (`fuzzy_membership`). m is the mean probability weighted by membership; q is the
    largest probability outside the set, or, with c, (1 - mu_c) p_c + mu_c times that probability. `official` includes q
    in the mean. Raises ValueError for invalid shapes or options.
    """
    options = FPLOptions(kind, a, variant=variant)
    check_logits("teacher_logits", teacher_logits)
    check_map("members", members, teacher_logits.shape, teacher_logits.device)
    if members.dtype != torch.bool and not members.is_floating_point():
        raise ValueError(f"members: found {members.dtype}, expected torch.bool or a floating-point membership")
    with torch.no_grad(), full_precision(teacher_logits.device):
        p = torch.softmax(at_least_fp32(teacher_logits), 1)
        mu = members.to(p.dtype)
        between = (mu > 0) & (mu < 1)
        outside = torch.where(mu > 0, 0, p).amax(1)
        part = torch.where(between, mu, 0).sum(1)
        rest = torch.where(between, (1 - mu) * p, 0).sum(1)
        q = torch.where(between.any(1), rest + part * outside, outside)
        return options.weight_of((mu * p).sum(1), q, mu.sum(1))


def assignment_weight(assignment: Assignment, options: FPLOptions) -> Tensor:
    """Compute the weight (B,1,*spatial) from sorted probabilities. Arguments are not checked."""
    inside, q = assignment.total.gather(1, assignment.k - 1), assignment.p.gather(1, assignment.k)
    if assignment.fraction is None:
        return options.weight_of(inside, q, assignment.k)
    last = assignment.p.shape[1] - 1
    after = assignment.p.gather(1, (assignment.k + 1).clamp(max=last))  # where the rank is clamped, the fraction is 0
    inside = inside + assignment.fraction * q
    q = q + assignment.fraction * (after - q)
    return options.weight_of(inside, q, assignment.k + assignment.fraction)
