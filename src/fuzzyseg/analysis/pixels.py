"""Per-pixel maps of the fuzzy set, its weight, and the losses' gradients at the true class."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fuzzyseg.losses import positive_gradient_score
from fuzzyseg.losses.base import at_least_fp32, check_map, check_pair, check_threshold, full_precision
from fuzzyseg.losses.fpl.assignment import SortedClasses, assign_sorted, sorted_classes
from fuzzyseg.losses.fpl.options import PAPER, FPLOptions
from fuzzyseg.losses.fpl.regularisation import fuzzy_positive_regularisation
from fuzzyseg.losses.fpl.weight import assignment_weight
from fuzzyseg.losses.supervised import VOID

UNKNOWN, RIGHT, RESCUED, MISSED = 0, 1, 2, 3
"""Values of the case map (section 3.4 of the FPL paper): the true class is unknown; the pseudo label is right (case
1); it is wrong, but the fuzzy set contains the true class (case 2); it is wrong, and the set does not (case 3)."""


class Losses(NamedTuple):
    """A map (B,H,W) for the `hard` loss (cross entropy on the pseudo label), and one for the `fuzzy` loss."""

    hard: Tensor
    fuzzy: Tensor


class PixelMaps(NamedTuple):
    """Detached maps (B,H,W), and `order` (B,C,H,W), the class indices sorted by decreasing probability.

    label: the most probable class. k: size of the fuzzy set, including a partial member. confidence: largest
    probability. entropy: entropy of the probabilities divided by log C, in [0, 1]. weight: Eq. 11 or 16. case: uint8,
    see `UNKNOWN`. score: positive gradient score R (Eq. 12). lift: negative gradient at the logit of the true class,
    multiplied by the weight for `fuzzy`; positive values increase the logit. score and lift are NaN at unlabelled
    pixels; lift is None if it was not requested.
    """

    order: Tensor
    label: Tensor
    k: Tensor
    confidence: Tensor
    entropy: Tensor
    weight: Tensor
    case: Tensor
    score: Losses
    lift: Losses | None


def pixel_maps(
    teacher: Tensor,
    student: Tensor,
    target: Tensor,
    *,
    threshold: float | Tensor = 0.9,
    options: FPLOptions = PAPER,
    lift: bool = True,
    ranking: SortedClasses | None = None,
) -> PixelMaps:
    """Compute the maps from the logits (B,C,H,W) of a teacher and a student.

    target (B,H,W): true classes, 255 for void. threshold: T, a number or a tensor, 0-dim or (B,H,W). options: options
    of the fuzzy loss. lift: whether to compute the lift. ranking: `sorted_classes` of the teacher's logits, if
    available. Raises ValueError for invalid shapes.
    """
    shape = check_pair(student, teacher, None)
    check_map("target", target, shape, teacher.device)
    check_threshold(threshold, shape, teacher.device)
    with torch.no_grad(), full_precision(teacher.device):
        assignment = assign_sorted(ranking or sorted_classes(at_least_fp32(teacher)), threshold, options)
        members, label = assignment.membership(), assignment.order[:, 0]
        known = target != VOID
        truth = torch.where(known, target, 0).long()  # (B,H,W)
        inside = members.gather(1, truth.unsqueeze(1)).squeeze(1) > 0
        case = torch.where(label == truth, RIGHT, torch.where(inside, RESCUED, MISSED))
        vanilla = F.one_hot(label, teacher.shape[1]).movedim(-1, 1).bool()
        weight = assignment_weight(assignment, options).squeeze(1)
        score = Losses(*(positive_gradient_score(student, y, target) for y in (vanilla, members)))
        lifts = None
        if lift:
            hard, fuzzy = (torch.where(known, _lift(student, y, truth), torch.nan) for y in (vanilla, members))
            lifts = Losses(hard, weight * fuzzy)
        return PixelMaps(
            assignment.order,
            label,
            assignment.positives().squeeze(1),
            assignment.p[:, 0],
            torch.special.entr(assignment.p).sum(1) / torch.tensor(float(teacher.shape[1])).log(),
            weight,
            torch.where(known, case, UNKNOWN).to(torch.uint8),
            score,
            lifts,
        )


def _lift(student: Tensor, members: Tensor, truth: Tensor) -> Tensor:
    """Return the negative gradient of Eq. 7 (cross entropy for one positive) at the true class's logit, (B,H,W)."""
    with torch.enable_grad():
        z = at_least_fp32(student.detach()).requires_grad_()
        loss = fuzzy_positive_regularisation(z, members).sum()  # pixels are independent, so their gradients do not mix
        (gradient,) = torch.autograd.grad(loss, z)
    return -gradient.gather(1, truth.unsqueeze(1)).squeeze(1)
