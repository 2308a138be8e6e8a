"""Positive gradient score R, which measures a loss's effect on the true class: Eq. 12 to 15 of the FPL paper."""

import torch
from torch import Tensor

from fuzzyseg.losses.base import at_least_fp32, check_logits, check_map, full_precision


def positive_gradient_score(student_logits: Tensor, members: Tensor, target: Tensor, ignore_index: int = 255) -> Tensor:
    """Return the true class g's gradient divided by the sum over all positives: (B,*spatial) in [-1, 1].

    This is Eq. 12 in closed form. If g is a member, the score is the softmax of -z over the members, at g (the loss
    raises the true class's logit); otherwise it is minus the softmax of z over the non-members, at g (the loss lowers
    that logit). Eq. 15 has e^-z in the latter, which contradicts Eq. 8 and 12. For cross entropy on a pseudo label,
    `members` contains only that class.

    student_logits (B,C,*spatial); members, same shape: bool, from `assign_fuzzy_positives`, or, for the continuous
    rule, memberships from `fuzzy_membership`, where the sum is over the classes whose logits the loss raises.
    target (B,*spatial): true classes; the score is NaN where it is `ignore_index`. The score has no gradient. Raises
    ValueError for invalid shapes.
    """
    check_logits("student_logits", student_logits)
    check_map("members", members, student_logits.shape, student_logits.device)
    check_map("target", target, (student_logits.shape[0], *student_logits.shape[2:]), student_logits.device)
    with torch.no_grad(), full_precision(student_logits.device):
        z = at_least_fp32(student_logits)
        ignored = (target == ignore_index).unsqueeze(1)
        g = torch.where(ignored, 0, target.long().unsqueeze(1))
        if members.dtype != torch.bool:
            grad = _direction(z, members.to(z.dtype))
            score = -grad.gather(1, g) / (-grad).clamp(min=0).sum(1, keepdim=True)  # positive if the loss increases g
            return torch.where(ignored, torch.nan, score).squeeze(1)
        inside = members.gather(1, g)
        # g's softmax is over the members of Y if g is one of them, otherwise over the other classes.
        side = torch.where(members == inside, torch.where(members, -z, z), -torch.inf)
        share = torch.softmax(side, 1).gather(1, g)
        score = torch.where(inside, share, -share)
        return torch.where(ignored, torch.nan, score).squeeze(1)


def _direction(z: Tensor, mu: Tensor) -> Tensor:
    """Return the gradient of the continuous form, up to a positive factor for each pixel.

    The term mu_i e^-z_i raises z_i relative to all other negatives; (1 - mu_j) e^z_j lowers z_j relative to all other
    positives. Only the fractional class is both positive and negative.
    """
    between = (mu > 0) & (mu < 1)
    lift, push = mu.log() - z, torch.log1p(-mu) + z
    negatives = torch.where(between, _without(push, between), torch.logsumexp(push, 1, keepdim=True))
    positives = torch.where(between, _without(lift, between), torch.logsumexp(lift, 1, keepdim=True))
    lift, push = lift + negatives, push + positives
    largest = torch.maximum(lift, push).amax(1, keepdim=True)
    return (push - largest).exp() - (lift - largest).exp()


def _without(values: Tensor, left_out: Tensor) -> Tensor:
    return torch.logsumexp(torch.where(left_out, -torch.inf, values), 1, keepdim=True)
