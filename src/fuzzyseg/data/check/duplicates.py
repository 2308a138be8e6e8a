"""Images that are the same, and images that look the same in lists that should have nothing in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fuzzyseg.data.check.files import Seen

DISTANCE, LIKENESS = 10, 0.95
"""Pictures look alike where at most so many of 64 bits differ and the thumbnails' correlation is at least this."""

_BLOCK = 1024
_ONES = np.array([bin(byte).count("1") for byte in range(256)], dtype=np.uint8)


@dataclass(frozen=True)
class Group:
    """Images that belong together, by the list they are in; in each list in the order in which they were given."""

    members: Mapping[str, tuple[Seen, ...]]

    def between(self, one: Sequence[str], other: Sequence[str]) -> bool:
        """Whether it has members in a list of `one` and in a list of `other`."""
        return any(name in self.members for name in one) and any(name in self.members for name in other)

    @property
    def size(self) -> int:
        """How many images there are."""
        return sum(len(members) for members in self.members.values())


def exact_groups(lists: Mapping[str, Sequence[Seen]]) -> list[Group]:
    """Images of equal pixels, two or more a group, in whichever lists they are; files that were not read are passed."""
    by_digest: dict[bytes, list[tuple[str, Seen]]] = {}
    for name, images in lists.items():
        for image in images:
            if image.problem is None:
                by_digest.setdefault(image.digest, []).append((name, image))
    return [_group(members) for members in by_digest.values() if len(members) > 1]


def near_groups(lists: Mapping[str, Sequence[Seen]], one: Sequence[str], other: Sequence[str]) -> list[Group]:
    """Images of the lists `one` and of the lists `other` that look alike but are not equal, joined to groups.

    Pairs of an image of `one` and an image of `other` are looked for, none within one side: frames of a video look
    alike, and that is no fault in a list for training. Pairs that share an image are of one group.
    """
    left = [(name, image) for name in one for image in lists.get(name, ()) if image.fingerprint is not None]
    right = [(name, image) for name in other for image in lists.get(name, ()) if image.fingerprint is not None]
    if not left or not right:
        return []
    owner = list(range(len(left) + len(right)))

    def root(index: int) -> int:
        while owner[index] != index:
            owner[index] = owner[owner[index]]
            index = owner[index]
        return index

    for a, b in _pairs([image for _, image in left], [image for _, image in right]):
        if left[a][1].digest != right[b][1].digest:
            owner[root(len(left) + b)] = root(a)
    joined: dict[int, list[tuple[str, Seen]]] = {}
    for index, member in enumerate([*left, *right]):
        joined.setdefault(root(index), []).append(member)
    return [_group(members) for members in joined.values() if len(members) > 1]


def _pairs(left: Sequence[Seen], right: Sequence[Seen]) -> Iterator[tuple[int, int]]:
    """Indices of the pairs that look alike, block by block: the full table of distances may be large."""
    bits = [np.array([image.fingerprint for image in side], dtype=np.uint64) for side in (left, right)]
    small = [np.stack([_thumbnail(image) for image in side]) for side in (left, right)]
    for start in range(0, len(left), _BLOCK):
        for begin in range(0, len(right), _BLOCK):
            a, b = bits[0][start : start + _BLOCK], bits[1][begin : begin + _BLOCK]
            different = np.ascontiguousarray(a[:, None] ^ b[None, :]).view(np.uint8).reshape(len(a), len(b), 8)
            near = _ONES[different].sum(2, dtype=np.uint8) <= DISTANCE
            for i, j in np.argwhere(near).tolist():
                likeness = float((small[0][start + i] * small[1][begin + j]).mean())
                if likeness >= LIKENESS:
                    yield start + i, begin + j


def _thumbnail(image: Seen) -> NDArray[np.float32]:
    return np.frombuffer(image.thumbnail, dtype=np.float16).astype(np.float32)


def _group(members: Sequence[tuple[str, Seen]]) -> Group:
    names = dict.fromkeys(name for name, _ in members)
    return Group({name: tuple(image for other, image in members if other == name) for name in names})
