"""The fuzzy set of each pixel of a chunk (C,P), from sorted rows: a bound on the probability, not a list of classes.

The classes whose probability is at least that of rank K are positive; where rank K + 1 has the same probability the
lower class goes before, as everywhere.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fuzzyseg.losses.fpl.weight import weight_of
from fuzzyseg.losses.kernels.sorting_network import sort_rows
from fuzzyseg.losses.kernels.types import Options


class Ranked(NamedTuple):
    """Of each pixel (P,): K in the precision of p, the probabilities at ranks 1, K and K + 1, the weight.

    fraction: how much of rank K + 1 is positive, of the continuous rule alone.
    """

    k: Tensor
    largest: Tensor
    last: Tensor
    next: Tensor
    weight: Tensor
    fraction: Tensor | None


class Members(NamedTuple):
    """A fuzzy set by class: `positive` (C,P) of 0 and 1; `between` (1,P) int64, the class that is so by `fraction`."""

    positive: Tensor
    between: Tensor | None
    fraction: Tensor | None


def may_be_several(first: Tensor, second: Tensor, threshold: Tensor, options: Options) -> Tensor:
    """Bool (P,): where Alg. 1 may keep more than the top class, or where the top class is not one alone.

    first, second: the two largest probabilities. Where it is False K is 1 and the weight follows from these two.
    """
    if options.cap == 1 or options.rule == 1:
        return first == second
    if isinstance(options.rule, int):
        return torch.ones_like(first, dtype=torch.bool)
    total = first + second if options.rule == "n-1" else first
    return (total <= threshold) | (threshold >= 1) | (first == second)


def rank(p: Tensor, threshold: Tensor, options: Options) -> Ranked:
    """Alg. 1 for probabilities (C,P)."""
    cap = options.cap
    depth = min(cap + (2 if options.continuous else 1), p.shape[0])
    rows = torch.stack(sort_rows(p.clone(), depth))  # the unsorted copy is freed at once
    total = torch.empty_like(rows[:cap])
    total[0] = rows[0]
    for n in range(1, cap):
        torch.add(total[n - 1], rows[n], out=total[n])
    if isinstance(options.rule, int):
        k = torch.full_like(rows[0], min(options.rule, cap))
    else:
        k = _within(total, threshold, options).add_(1 if options.rule == "n" else 0).clamp_(1, cap)
    at = k.long().unsqueeze(0)
    inside, last, after = (x.gather(0, i).squeeze(0) for x, i in ((total, at - 1), (rows, at - 1), (rows, at)))
    if not options.continuous:
        weight = weight_of(inside, after, k, kind=options.weight, a=options.a, variant=options.variant)
        return Ranked(k, rows[0], last, after, weight, None)
    room = threshold - inside
    fraction = torch.where((k < cap) & (room > 0), (room / after).clamp(max=1), 0)
    beyond = rows.gather(0, (at + 1).clamp(max=depth - 1)).squeeze(0)
    q = after + fraction * (beyond - after)
    weight = weight_of(
        inside + fraction * after, q, k + fraction, kind=options.weight, a=options.a, variant=options.variant
    )
    return Ranked(k, rows[0], last, after, weight, fraction)


def _within(total: Tensor, threshold: Tensor, options: Options) -> Tensor:
    """How many of the sums (n,P) stay within the threshold: (P,). Rounded sums may exceed T = 1."""
    counted = torch.empty_like(total)
    if options.variant == "official":
        return torch.lt(total, threshold, out=counted).sum(0)
    return torch.le(total, torch.where(threshold >= 1, torch.inf, threshold), out=counted).sum(0)


def members(p: Tensor, ranked: Ranked) -> Members:
    """Which classes are positive: (C,P) of 0 and 1, equal probabilities by class index."""
    positive = torch.ge(p, ranked.last, out=torch.empty_like(p))
    tied = (ranked.last == ranked.next).nonzero().squeeze(1)
    if len(tied):
        part = _lowest(p.index_select(1, tied), ranked.last[tied], ranked.k[tied])
        positive.index_copy_(1, tied, part)
    if ranked.fraction is None:
        return Members(positive, None, None)
    candidates = torch.eq(p, ranked.next, out=torch.empty_like(p)).mul_(1 - positive)
    return Members(positive, first_class(candidates).unsqueeze(0), ranked.fraction)


def _lowest(p: Tensor, last: Tensor, k: Tensor) -> Tensor:
    """Members (C,n) where several classes have the probability of rank K: the lowest of them, K in all."""
    chosen = torch.gt(p, last, out=torch.empty_like(p))
    equal = torch.eq(p, last, out=torch.empty_like(p))
    wanted, seen = k - chosen.sum(0), torch.zeros_like(k)
    for i in range(len(p)):
        seen += equal[i]
        chosen[i] += equal[i] * (seen <= wanted)
    return chosen


def first_class(marks: Tensor) -> Tensor:
    """The lowest class with a 1 in `marks` (C,P): int64 (P,); 0 where there is none."""
    classes = len(marks)
    falling = torch.arange(classes, 0, -1, dtype=marks.dtype, device=marks.device).unsqueeze(1)
    return (classes - (marks * falling).amax(0)).long() % classes


def only_class(marks: Tensor) -> Tensor:
    """The same where each column holds one 1 at most: a product of matrices, several times as fast."""
    return (torch.arange(len(marks), dtype=marks.dtype, device=marks.device) @ marks).long()
