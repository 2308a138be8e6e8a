"""Which classes are positive: Alg. 1 of the FPL paper, its relatives, and its continuous form."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fuzzyseg.losses.base import at_least_fp32, check_logits, check_threshold, full_precision
from fuzzyseg.losses.fpl.options import FPLOptions, Rule, Variant


class Assignment(NamedTuple):
    """The classes of every pixel in falling order of probability, and how many of them are positive.

    k (B,1,*spatial) int64: how many are positive in full. fraction (B,1,*spatial), of the continuous rule alone: the
    membership, in [0, 1], of the class at rank k + 1. order, p, total (B,C,*spatial): classes, probabilities and their
    running sums.
    """

    k: Tensor
    fraction: Tensor | None
    order: Tensor
    p: Tensor
    total: Tensor

    def membership(self) -> Tensor:
        """(B,C,*spatial) by class: bool, for the continuous rule in the precision of the probabilities."""
        ranks = torch.arange(self.p.shape[1], device=self.p.device).view(1, -1, *[1] * (self.p.dim() - 2))
        full = ranks < self.k
        if self.fraction is None:
            return torch.zeros_like(full).scatter_(1, self.order, full)
        by_rank = torch.where(ranks == self.k, self.fraction, full.to(self.p.dtype))
        return torch.zeros_like(self.p).scatter_(1, self.order, by_rank)

    def positives(self) -> Tensor:
        """How many classes have a membership above 0, (B,1,*spatial) int64."""
        return self.k if self.fraction is None else self.k + (self.fraction > 0)


def assign(teacher: Tensor, threshold: float | Tensor, options: FPLOptions) -> Assignment:
    """Alg. 1 by one sort; equal probabilities rank by class index, the lower first. fp32 or fp64, without checks."""
    return assign_sorted(sorted_classes(teacher), threshold, options)


class SortedClasses(NamedTuple):
    """Classes, probabilities and their running sums in falling order of probability, (B,C,*spatial) each."""

    order: Tensor
    p: Tensor
    total: Tensor


def sorted_classes(teacher: Tensor) -> SortedClasses:
    """One sort of the probabilities; equal ones rank by class index. Unchecked, fp32 or fp64."""
    p, order = torch.softmax(teacher, 1).sort(dim=1, descending=True, stable=True)
    return SortedClasses(order, p, p.cumsum(1))


def assign_sorted(ranking: SortedClasses, threshold: float | Tensor, options: FPLOptions) -> Assignment:
    """Alg. 1 on sorted classes, so that several thresholds share one sort. Without checks."""
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
    """How much of the class at rank k + 1 fits below T, (T - S_k) / p_(k+1): 0 where the top class alone exceeds T.

    0 also where k is the largest K, so that the least probable class is never positive.
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
    """The fuzzy positive classes of every pixel, Alg. 1: bool, shaped like the logits, 1 to C-1 True at each pixel.

    teacher_logits: (N,C), (B,C,H,W) or (B,C,D,H,W), C >= 2. threshold: T, a number in (0, 1] or a tensor, 0-dim or one
    per pixel, whose values are not checked. k_cap: largest K; None is C-1 (`official`: 3). rule: `n-1`, Alg. 1, leaves
    out the class with which the sum passes T; `n` takes it in; `continuous` takes in what of it has a membership above
    0 (`fuzzy_membership` gives how much); a number is a fixed K. T = 1 gives C-1. Equal probabilities rank by class
    index, the lower first. Raises ValueError for wrong shapes and options.
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
    """How far every class of a pixel is positive: in [0, 1], fp32 (fp64 stays), shaped like the logits.

    `continuous` is ours, an answer to the paper's open question of a continuous K. With the classes in falling order of
    probability, S_n the sum of the first n, and c the first rank with S_c > T, membership is 1 before c, 0 after c, and
    (T - S_(c-1)) / p_(c) at c; but always 1 at rank 1 and 0 at rank C. So two classes that share a pixel, p = (.5, .49,
    .01), are positive both, the second by .82 at T = .9, where `n-1` keeps the first alone. It is continuous in the
    probabilities as long as their order at the rank c stays: of two equal probabilities there the lower class has the
    higher membership. k_cap bounds how many classes have one. Other rules give 0 and 1. The rest as in
    `assign_fuzzy_positives`.
    """
    found = _checked(teacher_logits, threshold, FPLOptions(k_cap=k_cap, rule=rule, variant=variant))
    return found.membership().to(found.p.dtype)


def _checked(teacher_logits: Tensor, threshold: float | Tensor, options: FPLOptions) -> Assignment:
    check_logits("teacher_logits", teacher_logits)
    shape = (teacher_logits.shape[0], *teacher_logits.shape[2:])
    check_threshold(threshold, shape, teacher_logits.device)
    with torch.no_grad(), full_precision(teacher_logits.device):
        return assign(at_least_fp32(teacher_logits), threshold, options)
