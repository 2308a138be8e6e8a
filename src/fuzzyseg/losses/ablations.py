"""Ablations of FPL: alternative losses over the same fuzzy positive set.

The set, weight, options and signature are those of `fuzzyseg.losses.pseudo_label.fuzzy`; only the loss on the student
differs. Notation: p, the student's probabilities; Y, the fuzzy positives; mu, the membership (1 in Y and 0 elsewhere,
except with the continuous rule). `weight="none"` gives the losses of the original papers.
"""

from typing import Unpack

import torch
from torch import Tensor
from torch.nn import functional as F

from fuzzyseg.losses.fpl.options import SetKeywords
from fuzzyseg.losses.fpl.regularisation import log_sum_exp
from fuzzyseg.losses.pseudo_label import PixelLoss, over_set
from fuzzyseg.ops.mix import Mixed


def negative(student_logits: Tensor, teacher: Tensor | Mixed, **given: Unpack[SetKeywords]) -> PixelLoss:
    """Compute the negative-learning loss (`negative_learning`) on the classes outside the fuzzy set."""
    return over_set(negative_learning, student_logits, teacher, **given)


def partial(student_logits: Tensor, teacher: Tensor | Mixed, **given: Unpack[SetKeywords]) -> PixelLoss:
    """Compute the partial-label loss (`partial_label`) on the fuzzy set."""
    return over_set(partial_label, student_logits, teacher, **given)


def negative_learning(student: Tensor, members: Tensor) -> Tensor:
    """Return -sum over j of (1 - mu_j) log(1 - p_j): (B,*spatial) from (B,C,*spatial).

    Y. Kim, J. Yim, J. Yun, J. Kim, "NLNL: Negative Learning for Noisy Labels", ICCV 2019 (a label means "not
    these classes"). Training raises each positive logit in proportion to p_i, so the largest one grows most; with FPL,
    the smallest one does.
    """
    largest = student.detach().max(1, keepdim=True).indices
    top = torch.zeros_like(student, dtype=torch.bool).scatter_(1, largest, True)
    # To avoid cancellation, compute 1 - p of the largest class from the sum over the other classes.
    others = log_sum_exp(torch.where(top, -torch.inf, student)).unsqueeze(1)
    above = F.softplus(torch.where(top, student - others, 0), threshold=50.0)
    below = torch.log1p(-torch.where(top, 0, torch.softmax(student, 1)))
    return ((1 - members.to(student.dtype)) * torch.where(top, above, -below)).sum(1)


def partial_label(student: Tensor, members: Tensor) -> Tensor:
    """Return -log(sum over i of mu_i p_i): (B,*spatial) from (B,C,*spatial).

    R. Jin, Z. Ghahramani, "Learning with multiple labels", NIPS 2002 (a label means "one of these classes"). The
    loss is 0 if a single positive has all the probability, and it too raises the largest logit most. With K = 1, it is
    cross entropy.
    """
    mu = members.to(student.dtype)
    return F.softplus(log_sum_exp(student + torch.log1p(-mu)) - log_sum_exp(student + mu.log()), threshold=50.0)
