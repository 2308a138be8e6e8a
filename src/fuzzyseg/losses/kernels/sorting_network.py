"""Rows in falling order by a sorting network: no index tensor, no gather, each comparator a maximum and a minimum.

K. E. Batcher, "Sorting networks and their applications", AFIPS 1968, in the form for any number of rows of D. E. Knuth,
The Art of Computer Programming, volume 3, 5.2.2, algorithm M.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor


class Comparator(NamedTuple):
    """Two rows that are brought into order, the larger one first, and which of the two is needed afterwards."""

    first: int
    second: int
    larger: bool
    smaller: bool


@cache
def comparators(rows: int, top: int) -> tuple[Comparator, ...]:
    """The network that puts the `top` largest of `rows` values at the front in falling order; dead halves left out."""
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
    """The `top` largest of each column of `values` (C,P), which is overwritten: rows (P,) in falling order.

    A column with a NaN gives NaN.
    """
    network = comparators(len(values), top)
    if values.shape[1] * len(values) * len(values).bit_length() < 500 * len(network):
        return list(values.sort(0, descending=True).values[:top])  # too few columns for the price of so many calls
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
    """The largest and the second largest of each column of `values` (C,P), C >= 2, equal ones counted apart."""
    half = values.shape[0] // 2
    high = torch.maximum(values[:half], values[half : 2 * half])
    low = torch.minimum(values[:half], values[half : 2 * half])
    rest: list[tuple[Tensor, Tensor | None]] = []  # what found no partner: (largest, second largest or None)
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
