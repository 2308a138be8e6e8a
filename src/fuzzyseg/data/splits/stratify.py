"""Seeded shuffling, and stratified partitioning, in which every part contains every class where possible."""

import hashlib
from collections.abc import Sequence
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from fuzzyseg.data.sample import Item


def shuffled(items: Sequence[Item], seed: int, purpose: str) -> list[int]:
    """Return the indices of `items` in an order that depends only on (purpose, seed) and the item names."""

    def key(index: int) -> bytes:
        return hashlib.sha256(f"{purpose}|{seed}|{items[index].name}".encode("utf-8", "surrogateescape")).digest()

    return sorted(range(len(items)), key=key)


def stratified(
    parts: Sequence[Sequence[int]], present: NDArray[np.bool_], sizes: Sequence[int] | None = None
) -> list[list[int]]:
    """Swap members between parts, one pair at a time, as long as a swap makes classes occur in more parts.

    parts: disjoint lists of indices. present: (N,C), the classes of each index. sizes: number of images per index.
    Default: 1. Returns the new parts. The swap with the largest gain is made first; ties are broken by the smallest
    change of part sizes, then by order. If all parts already contain all possible classes, they are unchanged. The
    result is deterministic. Like any local search, this may miss a better partition.
    """
    lists = [np.array(part, dtype=np.intp) for part in parts]
    size = np.ones(len(present), np.int64) if sizes is None else np.array(sizes)
    while True:
        counts = np.stack([present[part].sum(0) for part in lists])
        short = (counts > 0).sum(0) < np.minimum(counts.sum(0), len(lists))
        best, swap = 0, None
        for source, target in permutations(range(len(lists)), 2):
            missing = short & (counts[target] == 0) & (counts[source] > 1)
            other = present[lists[target]]
            for place in np.flatnonzero(present[lists[source]][:, missing].any(1)):
                index = lists[source][place]
                after = counts[target] - other + present[index], counts[source] + other - present[index]
                gain = sum((each > 0).sum(1) for each in after) - (counts[[target, source]] > 0).sum()
                value = gain * (size.sum() + 1) - abs(size[lists[target]] - size[index])
                if len(value) and value.max() > best:
                    best, swap = value.max(), (source, place, target, int(value.argmax()))
        if swap is None:
            return [part.tolist() for part in lists]
        source, place, target, partner = swap
        lists[source][place], lists[target][partner] = lists[target][partner], lists[source][place]
