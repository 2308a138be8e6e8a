"""FPL for one pixel in plain Python, from the formulas of the paper: the oracle of the tests of this folder."""

from __future__ import annotations

import math
from collections.abc import Sequence

A = 50.0


def probabilities(z: Sequence[float]) -> list[float]:
    largest = max(z)
    e = [math.exp(value - largest) for value in z]
    return [value / sum(e) for value in e]


def falling(p: Sequence[float]) -> list[int]:
    return sorted(range(len(p)), key=lambda i: (-p[i], i))


def fuzzy_set(p: Sequence[float], threshold: float) -> list[int]:
    """Alg. 1: walk down until the sum passes T, keep all but the last."""
    order, total = falling(p), 0.0
    for n, place in enumerate(order, start=1):
        total += p[place]
        if total > threshold or n == len(p):
            return order[: max(n - 1, 1)]
    raise AssertionError


def membership(p: Sequence[float], threshold: float) -> list[float]:
    """The continuous rule, as it is documented."""
    order, before, mu = falling(p), 0.0, [0.0] * len(p)
    for rank, place in enumerate(order, start=1):
        if before + p[place] > threshold:
            mu[place] = (threshold - before) / p[place]
            if rank == 1:
                mu[place] = 1.0
            if rank == len(p):
                mu[place] = 0.0
            return mu
        before += p[place]
        mu[place] = 0.0 if rank == len(p) else 1.0
    return mu


def weight(p: Sequence[float], positives: Sequence[int]) -> float:
    """Eq. 11."""
    m = sum(p[i] for i in positives) / len(positives)
    q = max(p[j] for j in range(len(p)) if j not in positives)
    return math.log(1 + A * (m - q)) / math.log(1 + A * m)


def loss(z: Sequence[float], positives: Sequence[int]) -> float:
    """Eq. 7."""
    lift = sum(math.exp(-z[i]) for i in positives)
    push = sum(math.exp(z[j]) for j in range(len(z)) if j not in positives)
    return math.log(1 + lift * push)


def continuous_loss(z: Sequence[float], mu: Sequence[float]) -> float:
    places = range(len(z))
    return math.log(1 + sum(mu[i] * (1 - mu[j]) * math.exp(z[j] - z[i]) for i in places for j in places if i != j))


def slope(function, z: Sequence[float], place: int, sets: Sequence[float]) -> float:
    """The derivative in one logit, by central differences."""
    h = 1e-6
    up, down = list(z), list(z)
    up[place] += h
    down[place] -= h
    return (function(up, sets) - function(down, sets)) / (2 * h)


def case_of(label: int, positives: Sequence[int], truth: int) -> int:
    if truth == label:
        return 1
    return 2 if truth in positives else 3


def score(z: Sequence[float], positives: Sequence[int], truth: int) -> float:
    """Eq. 12, with the gradients by differences."""
    return slope(loss, z, truth, positives) / sum(slope(loss, z, i, positives) for i in positives)


def entropy(p: Sequence[float]) -> float:
    return -sum(value * math.log(value) for value in p if value > 0) / math.log(len(p))
