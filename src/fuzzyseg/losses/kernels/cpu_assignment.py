"""Fuzzy positive sets of a chunk of pixels (C,P) on the CPU, found by comparison with the probability at rank K.

Rows are sorted by a sorting network, in which each comparator is a maximum and a minimum, without index tensors.
Classes are positive if their probability is at least that at rank K; ties go to the lower class.

K. E. Batcher, "Sorting networks and their applications", AFIPS 1968, generalised to any number of rows in D. E. Knuth,
The Art of Computer Programming, volume 3, 5.2.2, algorithm M.
"""

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from fuzzyseg.losses.fpl.options import FPLOptions


class Ranked(NamedTuple):
    """Maps (P,): K in p's precision, the probabilities at ranks 1, K and K + 1, and the weight.

    fraction: membership of the class at rank K + 1, with the continuous rule only.
    """

    k: Tensor
    largest: Tensor
    last: Tensor
    next: Tensor
    weight: Tensor
    fraction: Tensor | None


class Members(NamedTuple):
    """A fuzzy set: `positive` (C,P) of 0 and 1; `between` (1,P) int64, the class with membership `fraction`."""

    positive: Tensor
    between: Tensor | None
    fraction: Tensor | None


def may_have_several(first: Tensor, second: Tensor, threshold: Tensor, options: FPLOptions, classes: int) -> Tensor:
    """Return whether K may exceed 1 or the top class is tied: (P,) bool.

    first, second: the two largest probabilities, which determine the weight where the result is False.
    """
    if options.cap(classes) == 1 or options.rule == 1:
        return first == second
    if isinstance(options.rule, int):
        return torch.ones_like(first, dtype=torch.bool)
    total = first + second if options.rule == "n-1" else first
    return (total <= threshold) | (threshold >= 1) | (first == second)


def rank(p: Tensor, threshold: Tensor, options: FPLOptions) -> Ranked:
    """Run Alg. 1 on probabilities (C,P)."""
    cap, continuous = options.cap(len(p)), options.continuous(len(p))
    depth = min(cap + (2 if continuous else 1), len(p))
    rows = torch.stack(sort_rows(p.clone(), depth))  # the unsorted copy is freed immediately
    total = torch.empty_like(rows[:cap])
    total[0] = rows[0]
    for n in range(1, cap):
        torch.add(total[n - 1], rows[n], out=total[n])
    if isinstance(options.rule, int):
        k = torch.full_like(rows[0], min(options.rule, cap))
    else:
        k = _count_within(total, threshold, options).add_(1 if options.rule == "n" else 0).clamp_(1, cap)
    at = k.long().unsqueeze(0)
    inside, last, after = (x.gather(0, i).squeeze(0) for x, i in ((total, at - 1), (rows, at - 1), (rows, at)))
    if not continuous:
        return Ranked(k, rows[0], last, after, options.weight_of(inside, after, k), None)
    remaining = threshold - inside
    fraction = torch.where((k < cap) & (remaining > 0), (remaining / after).clamp(max=1), 0)
    beyond = rows.gather(0, (at + 1).clamp(max=depth - 1)).squeeze(0)
    q = after + fraction * (beyond - after)
    return Ranked(k, rows[0], last, after, options.weight_of(inside + fraction * after, q, k + fraction), fraction)


def _count_within(total: Tensor, threshold: Tensor, options: FPLOptions) -> Tensor:
    """Count the cumulative sums (n,P) within the threshold: (P,). Rounded sums may exceed T = 1."""
    counted = torch.empty_like(total)
    if options.variant == "official":
        return torch.lt(total, threshold, out=counted).sum(0)
    return torch.le(total, torch.where(threshold >= 1, torch.inf, threshold), out=counted).sum(0)


def members(p: Tensor, ranked: Ranked) -> Members:
    """Return the membership of each class; ties go to the lower class."""
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
    """Resolve ties at rank K: return members (C,n) with K positives, using the lowest of the tied classes."""
    chosen = torch.gt(p, last, out=torch.empty_like(p))
    equal = torch.eq(p, last, out=torch.empty_like(p))
    remaining, tied = k - chosen.sum(0), torch.zeros_like(k)
    for i in range(len(p)):
        tied += equal[i]
        chosen[i] += equal[i] * (tied <= remaining)
    return chosen


def first_class(marks: Tensor) -> Tensor:
    """Return the lowest class with a 1 in `marks` (C,P): (P,) int64; 0 if there is none."""
    classes = len(marks)
    falling = torch.arange(classes, 0, -1, dtype=marks.dtype, device=marks.device).unsqueeze(1)
    return (classes - (marks * falling).amax(0)).long() % classes


def only_class(marks: Tensor) -> Tensor:
    """Compute `first_class` for columns with at most one 1, by a matrix product, which is much faster."""
    return (torch.arange(len(marks), dtype=marks.dtype, device=marks.device) @ marks).long()


class Comparator(NamedTuple):
    """Two rows to be sorted, the larger value first, and which of the two results are needed."""

    first: int
    second: int
    larger: bool
    smaller: bool


@cache
def comparators(rows: int, top: int) -> tuple[Comparator, ...]:
    """Build a network that moves the `top` largest of `rows` values to the front in descending order."""
    pairs = []
    p = half = 1 << max(rows - 1, 1).bit_length() - 1
    while p > 0:
        q, r, d = half, 0, p
        while True:
            pairs += [(i, i + d) for i in range(rows - d) if i & p == r]
            if q == p:
                break
            q, r, d = q // 2, p, q - p
        p //= 2
    live, network = set(range(top)), []
    for i, j in reversed(pairs):
        if i in live or j in live:
            network.append(Comparator(i, j, i in live, j in live))
            live |= {i, j}
    return tuple(reversed(network))


def sort_rows(values: Tensor, top: int) -> list[Tensor]:
    """Return the `top` largest values of each column of `values` (C,P) as rows (P,), descending. Overwrites `values`.

    A column with a NaN gives NaN.
    """
    network = comparators(len(values), top)
    if values.shape[1] * len(values) * len(values).bit_length() < 500 * len(network):
        return list(values.sort(0, descending=True).values[:top])  # with few columns, one call is faster than many
    rows = list(values.unbind(0))
    spare = torch.empty_like(rows[0])
    for i, j, larger, smaller in network:
        a, b = rows[i], rows[j]
        if smaller:
            torch.minimum(a, b, out=spare)
        if larger:
            torch.maximum(a, b, out=a)
        if smaller:
            rows[j], spare = spare, b
    return rows[:top]


def two_largest(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return the two largest values of each column of `values` (C,P), C >= 2; they are equal if tied."""
    half = values.shape[0] // 2
    high = torch.maximum(values[:half], values[half : 2 * half])
    low = torch.minimum(values[:half], values[half : 2 * half])
    rest: list[tuple[Tensor, Tensor | None]] = []  # rows without a partner: (largest, second largest or None)
    if values.shape[0] % 2:
        rest.append((values[-1], None))
    while high.shape[0] > 1:
        half = high.shape[0] // 2
        if high.shape[0] % 2:
            rest.append((high[-1], low[-1]))
        a, b = high[:half], high[half : 2 * half]
        low = torch.maximum(torch.minimum(a, b), torch.maximum(low[:half], low[half : 2 * half]))
        high = torch.maximum(a, b)
    first, second = high[0], low[0]
    for other, below in rest:
        second = torch.maximum(second, torch.minimum(first, other))
        if below is not None:
            second = torch.maximum(second, below)
        first = torch.maximum(first, other)
    return first, second
