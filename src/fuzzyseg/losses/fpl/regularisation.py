"""Fuzzy positive regularisation: Eq. 7 of the FPL paper and its continuous form."""

import torch
from torch import Tensor
from torch.nn import functional as F

_SOFTPLUS = 50.0  # above this, log(1 + e^x) equals x even in fp64


def fuzzy_positive_regularisation(student: Tensor, members: Tensor) -> Tensor:
    """Return Eq. 7, log(1 + sum over Y of e^-z times sum outside Y of e^z): (B,*spatial) from (B,C,*spatial).

    members: bool, or memberships mu in [0, 1], at most one per pixel fractional, which give the continuous form
    log(1 + sum over i != j of mu_i (1 - mu_j) e^(z_j - z_i)).
    """
    if members.dtype != torch.bool:
        return _continuous(student, members)
    lift = log_sum_exp(torch.where(members, -student, -torch.inf))
    push = log_sum_exp(torch.where(members, -torch.inf, student))
    return F.softplus(lift + push, threshold=_SOFTPLUS)


def _continuous(student: Tensor, mu: Tensor) -> Tensor:
    """Compute the continuous form without cancellation: the pair of the fractional class c with itself is never added.

    With a = log(sum of e^-z over mu = 1), a negative other than c is paired with e^a + mu_c e^-z_c = e^(a + d), where
    d = log(1 + mu_c e^(-z_c - a)), and c, a negative with weight 1 - mu_c, is paired with e^a only. Hence
    L = softplus(a + d + log(sum of e^z over mu = 0, plus (1 - mu_c) e^(z_c - d))). Without c, d = 0 and this is Eq. 7.
    """
    between = (mu > 0) & (mu < 1)
    part = torch.where(between, mu, 0).sum(1)  # mu_c; 0 without such a class
    z_c = torch.where(between, student, 0).sum(1)
    lift = log_sum_exp(torch.where(mu == 1, -student, -torch.inf))
    both = F.softplus(part.log() - z_c - lift, threshold=_SOFTPLUS)  # log 0 gives 0, with a gradient of 0
    negative = student + torch.log1p(-mu) - torch.where(between, both.unsqueeze(1), 0)
    push = log_sum_exp(torch.where(mu < 1, negative, -torch.inf))
    return F.softplus(lift + both + push, threshold=_SOFTPLUS)


def log_sum_exp(values: Tensor) -> Tensor:
    """Return the log-sum-exp over axis 1, as the largest value plus the cross entropy on its class.

    Its gradient is exact for values in the thousands, unlike that of torch.logsumexp, whose backward subtracts the
    result from the values.
    """
    largest = values.detach().max(1).indices  # several times as fast as argmax on the CPU
    return values.gather(1, largest.unsqueeze(1)).squeeze(1) + F.cross_entropy(values, largest, reduction="none")
