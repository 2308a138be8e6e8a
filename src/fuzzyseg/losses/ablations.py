"""What else could be done with the same fuzzy set: relatives of FPL, so that a gain can be attributed to its parts.

Set, weight, options and signature are those of `fuzzyseg.losses.pseudo_label.fuzzy`; only what is asked of the student
differs. p are the student's probabilities, Y the fuzzy positives, mu the membership, which is 1 in Y and 0 elsewhere
but for the continuous rule. `weight="none"` gives them as their authors have them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Unpack

import torch
from torch import Tensor
from torch.nn import functional as F

from fuzzyseg.losses.arguments import check_threshold, full_precision
from fuzzyseg.losses.fpl.assignment import assign
from fuzzyseg.losses.fpl.options import SetOptions, check_options
from fuzzyseg.losses.fpl.regularisation import log_sum_exp
from fuzzyseg.losses.fpl.weight import assignment_weight
from fuzzyseg.losses.fuzzy import FuzzyMap
from fuzzyseg.losses.pseudo_label import PixelLoss, both_sides, over_set
from fuzzyseg.ops.mix import Mixed


def negative(
    student_logits: Tensor,
    teacher: Tensor | Mixed,
    *,
    size: Sequence[int],
    valid: Tensor,
    threshold: float | Tensor = 0.9,
    maps: bool = False,
    **options: Unpack[SetOptions],
) -> PixelLoss:
    """Negative learning: `negative_learning` over the classes outside the fuzzy set."""
    return _pixel_loss(
        negative_learning, student_logits, teacher, size, valid, threshold=threshold, maps=maps, options=options
    )


def partial(
    student_logits: Tensor,
    teacher: Tensor | Mixed,
    *,
    size: Sequence[int],
    valid: Tensor,
    threshold: float | Tensor = 0.9,
    maps: bool = False,
    **options: Unpack[SetOptions],
) -> PixelLoss:
    """Partial labels: `partial_label` over the fuzzy set."""
    return _pixel_loss(
        partial_label, student_logits, teacher, size, valid, threshold=threshold, maps=maps, options=options
    )


def negative_learning(student: Tensor, members: Tensor) -> Tensor:
    """-sum over j of (1 - mu_j) log(1 - p_j): (B,*spatial) from (B,C,*spatial).

    Y. Kim, J. Yim, J. Yun, J. Kim, "NLNL: Negative Learning for Noisy Labels", ICCV 2019: "not these classes". Its
    gradient lifts a positive in proportion to p_i, hence the largest most, where FPL lifts the smallest.
    """
    largest = student.detach().max(1, keepdim=True).indices
    top = torch.zeros_like(student, dtype=torch.bool).scatter_(1, largest, True)
    # 1 - p of the largest class cancels; against the sum of the others it does not.
    others = log_sum_exp(torch.where(top, -torch.inf, student)).unsqueeze(1)
    above = F.softplus(torch.where(top, student - others, 0), threshold=50.0)
    below = torch.log1p(-torch.where(top, 0, torch.softmax(student, 1)))
    return ((1 - members.to(student.dtype)) * torch.where(top, above, -below)).sum(1)


def partial_label(student: Tensor, members: Tensor) -> Tensor:
    """-log(sum over i of mu_i p_i): (B,*spatial) from (B,C,*spatial).

    R. Jin, Z. Ghahramani, "Learning with multiple labels", NIPS 2002: "one of these classes", whichever. One class that
    has it all is enough, so that it too lifts the largest most; for K = 1 it is cross entropy.
    """
    mu = members.to(student.dtype)
    return F.softplus(log_sum_exp(student + torch.log1p(-mu)) - log_sum_exp(student + mu.log()), threshold=50.0)


def _pixel_loss(
    function: Callable[[Tensor, Tensor], Tensor],
    student_logits: Tensor,
    teacher: Tensor | Mixed,
    size: Sequence[int],
    valid: Tensor,
    *,
    threshold: float | Tensor,
    maps: bool,
    options: SetOptions,
) -> PixelLoss:
    """`pixel.fuzzy` with `function` in the place of Eq. 7."""
    chosen: SetOptions = {"weight": "concave", "a": 50.0, "k_cap": None, "rule": "n-1", "variant": "paper", **options}
    k_cap, rule, variant = chosen["k_cap"], chosen["rule"], chosen["variant"]
    check_options(weight=chosen["weight"], k_cap=k_cap, rule=rule, variant=variant, a=chosen["a"])
    with full_precision(student_logits.device):
        student, target = both_sides(student_logits, teacher, size, valid)
        check_threshold(threshold, valid.shape, student.device)
        with torch.no_grad():
            found = assign(target, threshold=threshold, k_cap=k_cap, rule=rule, variant=variant)
            w = assignment_weight(found, kind=chosen["weight"], a=chosen["a"], variant=variant).squeeze(1)
        loss = w * function(student, found.membership())
        result = FuzzyMap(loss, w, found.positives().squeeze(1), found.p[:, 0], found.order[:, 0])
        return over_set(result, student, valid, balance=chosen.get("balance", False), maps=maps)
