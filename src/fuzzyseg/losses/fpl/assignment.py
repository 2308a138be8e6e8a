"""Fuzzy positive assignment: Alg. 1 of the FPL paper, its variants, and its continuous form."""

from typing import NamedTuple

import torch
from torch import Tensor

from fuzzyseg.losses.base import at_least_fp32, check_logits, check_threshold, full_precision
from fuzzyseg.losses.fpl.options import FPLOptions, Rule, Variant


class Assignment(NamedTuple):
    """Classes of each pixel in descending order of probability, and the number of positives.

    k (B,1,*spatial) int64: number of classes with membership 1. fraction (B,1,*spatial), with the continuous rule only:
    membership, in [0, 1], of the class at rank k + 1. order, p, total (B,C,*spatial): classes, probabilities and their
    cumulative sums.
    """

    k: Tensor
    fraction: Tensor | None
    order: Tensor
    p: Tensor
    total: Tensor

    def membership(self) -> Tensor:
        """(B,C,*spatial) by class: bool; with the continuous rule in the precision of the probabilities."""
        ranks = torch.arange(self.p.shape[1], device=self.p.device).view(1, -1, *[1] * (self.p.dim() - 2))
        full = ranks < self.k
        if self.fraction is None:
            return torch.zeros_like(full).scatter_(1, self.order, full)
        by_rank = torch.where(ranks == self.k, self.fraction, full.to(self.p.dtype))
        return torch.zeros_like(self.p).scatter_(1, self.order, by_rank)

    def positives(self) -> Tensor:
        """Number of classes with a membership above 0, (B,1,*spatial) int64."""
        return self.k if self.fraction is None else self.k + (self.fraction > 0)


def assign(teacher: Tensor, threshold: float | Tensor, options: FPLOptions) -> Assignment:
    """Alg. 1 by one sort; ties rank by class index, the lower first. fp32 or fp64, without checks."""
    return assign_sorted(sorted_classes(teacher), threshold, options)


class SortedClasses(NamedTuple):
    """Classes, probabilities and their cumulative sums in descending order of probability, (B,C,*spatial) each."""

    order: Tensor
    p: Tensor
    total: Tensor


def sorted_classes(teacher: Tensor) -> SortedClasses:
    """Classes sorted by probability; ties rank by class index. fp32 or fp64, without checks."""
    p, order = torch.softmax(teacher, 1).sort(dim=1, descending=True, stable=True)
    return SortedClasses(order, p, p.cumsum(1))


def assign_sorted(ranking: SortedClasses, threshold: float | Tensor, options: FPLOptions) -> Assignment:
    """Alg. 1 on sorted classes, so that several thresholds can share one sort. Without checks."""
    order, p, total = ranking
    cap = options.cap(p.shape[1])
    if isinstance(options.rule, int):
        return Assignment(torch.full_like(order[:, :1], min(options.rule, cap)), None, order, p, total)
    t = threshold
    if isinstance(t, Tensor):
        t = t.to(p.dtype) if t.dim() == 0 else t.to(p.dtype).unsqueeze(1)
    # The first n with S_n > T, or C, is one more than the ranks below C with S <= T; Alg. 1 keeps one fewer.
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
    """Fraction of the class at rank k + 1 below T, (T - S_k) / p_(k+1): 0 if the top class alone exceeds T.

    Also 0 if k is the largest K, so that the least probable class is never positive.
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
    """Fuzzy positive classes of each pixel, Alg. 1: bool, shaped like the logits, 1 to C-1 True at each pixel.

    teacher_logits: (N,C), (B,C,H,W) or (B,C,D,H,W), C >= 2. threshold: T, a number in (0, 1] or a tensor, 0-dim or one
    per pixel, whose values are not checked. k_cap: largest K; None is C-1 (`official`: 3). rule: `n-1`, Alg. 1, leaves
    out the class at which the sum exceeds T; `n` includes it; `continuous` includes it if its membership is above 0
    (see `fuzzy_membership`); an integer is a fixed K. T = 1 gives C-1. Ties rank by class index, the lower first.
    Raises ValueError for wrong shapes and options.
    """
    found = _checked(teacher_logits, threshold, FPLOptions(k_cap=k_cap, rule=rule, variant=variant))
    return found.membership() > 0


def fuzzy_membership(
    teacher_logits: Tensor,
    *,
    threshold: float | Tensor = 0.9,
    k_cap: int | None = None,
    rule: Rule = "continuous",
    variant: Variant = "paper",
) -> Tensor:
    """Membership of each class in the fuzzy positive set: in [0, 1], fp32 (fp64 stays), shaped like the logits.

    `continuous` is ours, an answer to the paper's open question of a continuous K. With the classes in descending order
    of probability, S_n the sum of the first n, and c the first rank with S_c > T, membership is 1 before c, 0 after c,
    and (T - S_(c-1)) / p_(c) at c; but always 1 at rank 1 and 0 at rank C. For p = (0.5, 0.49, 0.01) and T = 0.9 the
    second class has membership 0.82, where `n-1` selects the first class only. Membership is continuous in the
    probabilities while their order at rank c does not change. k_cap bounds the number of positive classes. Other rules
    give 0 and 1. Further arguments: see `assign_fuzzy_positives`.
    """
    found = _checked(teacher_logits, threshold, FPLOptions(k_cap=k_cap, rule=rule, variant=variant))
    return found.membership().to(found.p.dtype)


def _checked(teacher_logits: Tensor, threshold: float | Tensor, options: FPLOptions) -> Assignment:
    check_logits("teacher_logits", teacher_logits)
    shape = (teacher_logits.shape[0], *teacher_logits.shape[2:])
    check_threshold(threshold, shape, teacher_logits.device)
    with torch.no_grad(), full_precision(teacher_logits.device):
        return assign(at_least_fp32(teacher_logits), threshold, options)
