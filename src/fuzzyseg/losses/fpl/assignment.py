"""Fuzzy positive assignment: Alg. 1 of the FPL paper, its variants and its continuous form."""

from typing import NamedTuple

import torch
from torch import Tensor

from fuzzyseg.losses.base import at_least_fp32, check_logits, check_threshold, full_precision
from fuzzyseg.losses.fpl.options import FPLOptions, Rule, Variant


class Assignment(NamedTuple):
    """Classes of each pixel in descending order of probability, and the number of positives.

    k (B,1,*spatial) int64: number of classes with membership 1. fraction (B,1,*spatial), continuous rule only:
    membership in [0, 1] of the class at rank k + 1. order, p, total (B,C,*spatial): the sorted classes, their
    probabilities and cumulative sums.
    """

    k: Tensor
    fraction: Tensor | None
    order: Tensor
    p: Tensor
    total: Tensor

    def membership(self) -> Tensor:
        """Return each class's membership, (B,C,*spatial): bool, or p's dtype with the continuous rule."""
        ranks = torch.arange(self.p.shape[1], device=self.p.device).view(1, -1, *[1] * (self.p.dim() - 2))
        full = ranks < self.k
        if self.fraction is None:
            return torch.zeros_like(full).scatter_(1, self.order, full)
        by_rank = torch.where(ranks == self.k, self.fraction, full.to(self.p.dtype))
        return torch.zeros_like(self.p).scatter_(1, self.order, by_rank)

    def positives(self) -> Tensor:
        """Return the number of classes with membership above 0: (B,1,*spatial) int64."""
        return self.k if self.fraction is None else self.k + (self.fraction > 0)


def assign(teacher: Tensor, threshold: float | Tensor, options: FPLOptions) -> Assignment:
    """Run Alg. 1 on fp32 or fp64 logits, without checks. Ties are ranked by class index, lower first."""
    return assign_sorted(sorted_classes(teacher), threshold, options)


class SortedClasses(NamedTuple):
    """Classes, probabilities and cumulative sums, (B,C,*spatial) each, in descending order of probability."""

    order: Tensor
    p: Tensor
    total: Tensor


def sorted_classes(teacher: Tensor) -> SortedClasses:
    """Sort the classes of fp32 or fp64 logits by probability, without checks. Ties are ranked by class index."""
    p, order = torch.softmax(teacher, 1).sort(dim=1, descending=True, stable=True)
    return SortedClasses(order, p, p.cumsum(1))


def assign_sorted(ranking: SortedClasses, threshold: float | Tensor, options: FPLOptions) -> Assignment:
    """Run Alg. 1 on sorted classes, so that several thresholds can share one sort. Arguments are not checked."""
    order, p, total = ranking
    cap = options.cap(p.shape[1])
    if isinstance(options.rule, int):
        return Assignment(torch.full_like(order[:, :1], min(options.rule, cap)), None, order, p, total)
    t = threshold
    if isinstance(t, Tensor):
        t = t.to(p.dtype) if t.dim() == 0 else t.to(p.dtype).unsqueeze(1)
    # The first n with S_n > T, or C, is one more than the number of ranks below C with S <= T; Alg. 1 keeps one fewer.
    head = total[:, :-1]
    if options.variant == "official":
        within = head < t
    else:
        within = (head <= t) | (t >= 1)  # rounded sums may exceed T = 1
    k = within.sum(1, keepdim=True) + (1 if options.rule == "n" else 0)
    k = k.clamp(1, cap)
    fraction = _fraction(k, p, total, t, cap) if options.rule == "continuous" else None
    return Assignment(k, fraction, order, p, total)


def _fraction(k: Tensor, p: Tensor, total: Tensor, threshold: float | Tensor, cap: int) -> Tensor:
    """Return the fraction of p_(k+1) that fits below T: (T - S_k) / p_(k+1), or 0 if the top class exceeds T.

    It is also 0 if k is the maximum K, so that the least probable class is never positive.
    """
    remaining = threshold - total.gather(1, k - 1)
    share = (remaining / p.gather(1, k)).clamp(max=1)  # the rounded quotient may exceed 1
    return torch.where((k < cap) & (remaining > 0), share, 0)


def assign_fuzzy_positives(
    teacher_logits: Tensor,
    *,
    threshold: float | Tensor = 0.9,
    k_cap: int | None = None,
    rule: Rule = "n-1",
    variant: Variant = "paper",
) -> Tensor:
    """Return the fuzzy positive classes of each pixel (Alg. 1): bool, shaped like the logits, 1 to C-1 True per pixel.

    teacher_logits: (N,C), (B,C,H,W) or (B,C,D,H,W), C >= 2. threshold: T, a number in (0, 1], or a tensor (0-dim or one
    value per pixel) whose values are not checked. k_cap: maximum K; None means C-1 (`official`: 3). rule: `n-1`
    (Alg. 1) excludes the class at which the sum exceeds T; `n` includes it; `continuous` includes it if its membership
    is above 0 (see `fuzzy_membership`); an integer fixes K. T = 1 gives K = C-1. Ties are ranked by class index, lower
    first. Raises ValueError for invalid shapes or options.
    """
    assignment = _checked(teacher_logits, threshold, FPLOptions(k_cap=k_cap, rule=rule, variant=variant))
    return assignment.membership() > 0


def fuzzy_membership(
    teacher_logits: Tensor,
    *,
    threshold: float | Tensor = 0.9,
    k_cap: int | None = None,
    rule: Rule = "continuous",
    variant: Variant = "paper",
) -> Tensor:
    """Return each class's membership in the fuzzy positive set: in [0, 1], fp32 (or fp64), shaped like the logits.

    `continuous` is our answer to the FPL paper's open question of a continuous K. With the classes in descending order
    of probability, S_n the sum of the first n, and c the first rank with S_c > T, membership is 1 before c, 0 after c,
    and (T - S_(c-1)) / p_(c) at c; but it is always 1 at rank 1 and 0 at rank C. For p = (0.5, 0.49, 0.01) and T = 0.9,
    the second class has membership 0.82, whereas `n-1` selects only the first class. Membership is continuous in the
    probabilities as long as their order at rank c does not change. k_cap bounds the number of positive classes. Other
    rules give 0 or 1. For the other arguments, see `assign_fuzzy_positives`.
    """
    assignment = _checked(teacher_logits, threshold, FPLOptions(k_cap=k_cap, rule=rule, variant=variant))
    return assignment.membership().to(assignment.p.dtype)


def _checked(teacher_logits: Tensor, threshold: float | Tensor, options: FPLOptions) -> Assignment:
    check_logits("teacher_logits", teacher_logits)
    shape = (teacher_logits.shape[0], *teacher_logits.shape[2:])
    check_threshold(threshold, shape, teacher_logits.device)
    with torch.no_grad(), full_precision(teacher_logits.device):
        return assign(at_least_fp32(teacher_logits), threshold, options)
