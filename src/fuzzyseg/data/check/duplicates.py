"""Duplicate images, and near-duplicates between training and evaluation lists."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fuzzyseg.data.check.files import SIDE, FileInfo

DISTANCE, LIKENESS = 10, 0.95
"""Near-duplicates differ in at most `DISTANCE` of the 64 fingerprint bits, and their thumbnails have a correlation of
at least `LIKENESS`."""

_BLOCK = 256
_FLAT = bytes(2 * SIDE * SIDE)
"""Thumbnail of a single-colour image, whose correlation with any other is 0."""


@dataclass(frozen=True)
class Group:
    """A group of duplicate images, keyed by the list that contains them, in list order."""

    members: Mapping[str, tuple[FileInfo, ...]]

    def between(self, one: Sequence[str], other: Sequence[str]) -> bool:
        """Return whether the group has members in the lists named in `one` and in those named in `other`."""
        return any(name in self.members for name in one) and any(name in self.members for name in other)

    @property
    def images(self) -> list[FileInfo]:
        """All images of the group."""
        return [image for members in self.members.values() for image in members]


def exact_duplicates(lists: Mapping[str, Sequence[FileInfo]]) -> list[Group]:
    """Group readable images with identical pixels, within and across lists."""
    by_digest: dict[bytes, list[tuple[str, FileInfo]]] = {}
    for name, images in lists.items():
        for image in images:
            if image.problem is None:
                by_digest.setdefault(image.digest, []).append((name, image))
    return [_group(members) for members in by_digest.values() if len(members) > 1]


def near_duplicates(lists: Mapping[str, Sequence[FileInfo]], one: Sequence[str], other: Sequence[str]) -> list[Group]:
    """Group images in the lists `one` that are similar, but not identical, to images in the lists `other`.

    Pairs that share an image are merged. Images on the same side are not compared, because similar training images,
    such as video frames, are harmless.
    """
    left, right = ([(name, image) for name in names for image in lists.get(name, ())] for names in (one, other))
    if not left or not right:
        return []
    members, groups = [*left, *right], dict[int, set[int]]()
    for a, b in near_pairs([image for _, image in left], [image for _, image in right]):
        b += len(left)
        if members[a][1].digest != members[b][1].digest and b not in groups.get(a, ()):
            joined = groups.get(a, {a}) | groups.get(b, {b})
            groups.update(dict.fromkeys(joined, joined))
    distinct = {id(group): group for group in groups.values()}
    return [_group(members[index] for index in sorted(group)) for group in distinct.values()]


def near_pairs(left: Sequence[FileInfo], right: Sequence[FileInfo]) -> Iterator[tuple[int, int]]:
    """Yield index pairs (left, right) of near-duplicates, block by block, because the matrix of all pairs may be large.

    Images without a fingerprint match nothing. Neither side may be empty.
    """
    hashes = [np.array([image.fingerprint or 0 for image in side], np.uint64) for side in (left, right)]
    bits = [np.unpackbits(side.view(np.uint8).reshape(-1, 8), axis=1) * np.float32(2) - 1 for side in hashes]
    thumbnails = [
        np.stack([np.frombuffer(image.thumbnail or _FLAT, np.float16) for image in side]).astype(np.float32)
        for side in (left, right)
    ]
    for start in range(0, len(left), _BLOCK):
        rows = slice(start, start + _BLOCK)
        near = bits[0][rows] @ bits[1].T >= 64 - 2 * DISTANCE
        near &= thumbnails[0][rows] @ thumbnails[1].T >= LIKENESS * thumbnails[0].shape[1]
        yield from ((start + i, j) for i, j in np.argwhere(near).tolist())


def _group(members: Iterable[tuple[str, FileInfo]]) -> Group:
    by_list: dict[str, tuple[FileInfo, ...]] = {}
    for name, image in members:
        by_list[name] = (*by_list.get(name, ()), image)
    return Group(by_list)
