"""Sampler that maps draws to images, as a function of (seed, stream, number) and of previously published weights.

A stream reads its source in seeded permutations, one per epoch. A partner stream reads the same permutations reordered
by a random derangement: the two images differ in every draw, and both streams contain each image once per epoch.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from fuzzyseg.data.sample import DataError
from fuzzyseg.data.text import counted
from fuzzyseg.data.views import Stream

PUBLISH_DELAY = 16
"""Weights published at step n apply to draws from step n + 16 on. The loader prefetches fewer steps than that."""


def _hash(*parts: object) -> int:
    """Return an integer below 2**62 that does not depend on the process or the Python version."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 2


def _generator(*parts: object) -> torch.Generator:
    return torch.Generator().manual_seed(_hash(*parts))


def draw_seed(seed: int, stream: str, number: int) -> int:
    """Return the seed of a sample, below 2**62."""
    return _hash("sample", seed, stream, number)


@lru_cache(maxsize=16)
def permutation(seed: int, stream: str, epoch: int, n: int) -> Tensor:
    """Return the order (n,) of a stream's n images in an epoch. The result must not be modified."""
    return torch.randperm(n, generator=_generator("permutation", seed, stream, epoch))


@lru_cache(maxsize=16)
def derangement(seed: int, stream: str, epoch: int, n: int) -> Tensor:
    """Return a uniformly random permutation (n,) without fixed points, n >= 2. The result must not be modified.

    Permutations are drawn until one has no fixed point; about one in 2.7 has none.
    """
    generator = _generator("derangement", seed, stream, epoch)
    places = torch.arange(n)
    while bool(((order := torch.randperm(n, generator=generator)) == places).any()):
        pass
    return order


def index_at(seed: int, stream: str, number: int, n: int, partner: str | None = None) -> int:
    """Return the source index, from 0 to n - 1, of the stream's draw `number`. partner: its partner stream, if any."""
    epoch, place = divmod(number, n)
    if partner is None:
        return int(permutation(seed, stream, epoch, n)[place])
    return int(permutation(seed, partner, epoch, n)[derangement(seed, stream, epoch, n)[place]])


@dataclass(frozen=True)
class Draw:
    """Index of an image in the source, seed of the sample, and class for which it was drawn (-1: none)."""

    index: int
    seed: int
    drawn_for: int


@dataclass
class Sampler:
    """Sampler of all streams, with optional weights.

    streams: by name. counts: number of images by source. batch: draws per step. balance: weights (C,N) by source, used
    by the source's streams until others are published. Raises DataError if a source has too few images, and ValueError
    for an invalid partner.
    """

    streams: Mapping[str, Stream]
    counts: Mapping[str, int]
    batch: int
    seed: int
    balance: Mapping[str, Tensor] | None = None

    def __post_init__(self) -> None:
        for name, stream in self.streams.items():
            _check(name, stream, self.streams, self.counts)
        self._published: dict[str, dict[int, Tensor]] = {name: {} for name in self.streams}

    def at(self, stream: str, number: int) -> Draw:
        """Return the stream's draw `number`, counted from 0, which belongs to step number // batch.

        With weights, a class is drawn in proportion to the sum of its row, then an image in proportion to its entry in
        that row. Weights that are all 0 have no effect. A stream with a partner never draws the image that the partner
        draws: if no other image contains the class, it draws one without weights, but `drawn_for` is still the class.
        """
        spec = self.streams[stream]
        n = self.counts[spec.source]
        excluded = self.at(spec.partner, number).index if spec.partner else -1
        drawn_for, index = -1, -1
        weights = self._weights(stream, number // self.batch)
        if weights is not None:
            drawn_for, index = self._draw_weighted(weights, excluded, stream, number)
        following = number
        while index in (-1, excluded):
            # cyclic within the epoch; a partner has n >= 2 images, so the second attempt differs
            place = number - number % n + following % n
            index = index_at(self.seed, stream, place, n, spec.partner)
            following += 1
        return Draw(index, draw_seed(self.seed, stream, number), drawn_for)

    def publish(self, stream: str, step: int, weights: Tensor) -> None:
        """Set the weights (C,N) of a stream for draws from step + 16 on, where N is the number of images in its source.

        The weights are copied. Steps must not decrease, because weights that no later step needs are deleted. Raises
        ValueError for an unknown stream, invalid weights or a decreasing step.
        """
        published = self._of(stream)
        n = self.counts[self.streams[stream].source]
        if weights.dim() != 2 or weights.shape[0] < 1 or weights.shape[1] != n:
            raise ValueError(f"stream {stream!r}: weights have shape {tuple(weights.shape)}; expected (classes, {n})")
        weights = weights.detach().to("cpu", torch.float32, copy=True)
        if not bool((weights >= 0).all() and weights.isfinite().all()):
            raise ValueError(f"stream {stream!r}: found weights that are negative or not finite")
        if published and step < max(published):
            raise ValueError(f"stream {stream!r}: found weights of step {step} after those of step {max(published)}")
        published[step] = weights
        oldest = max((old for old in published if old <= step - PUBLISH_DELAY), default=step - PUBLISH_DELAY)
        self._published[stream] = {at: value for at, value in published.items() if at >= oldest}

    def state_dict(self) -> dict[str, dict[int, Tensor]]:
        """Return the weights for future draws: stream -> step of publication -> (C,N)."""
        return {stream: dict(published) for stream, published in self._published.items()}

    def load_state_dict(self, state: Mapping[str, Mapping[int, Tensor]]) -> None:
        """Replace all published weights. Raises ValueError for an unknown stream."""
        for stream in self.streams:
            self._published[stream] = {}
        for stream, published in state.items():
            self._of(stream)
            for step in sorted(published):
                self.publish(stream, step, published[step])

    def _of(self, stream: str) -> dict[int, Tensor]:
        if stream not in self._published:
            raise ValueError(f"found stream {stream!r}; expected one of {', '.join(self._published)}")
        return self._published[stream]

    def _weights(self, stream: str, step: int) -> Tensor | None:
        published = self._published[stream]
        newest = max((at for at in published if at <= step - PUBLISH_DELAY), default=None)
        return (self.balance or {}).get(self.streams[stream].source) if newest is None else published[newest]

    def _draw_weighted(self, weights: Tensor, excluded: int, stream: str, number: int) -> tuple[int, int]:
        """Return the class and image of a weighted draw (-1: none). The image is never `excluded`."""
        generator = _generator("steer", self.seed, stream, number)
        class_weights = weights.double().sum(1)
        if not bool((class_weights > 0).any()):
            return -1, -1
        drawn_for = int(torch.multinomial(class_weights, 1, generator=generator))
        row = weights[drawn_for].double()
        if excluded >= 0:
            row[excluded] = 0
        if not bool((row > 0).any()):
            return drawn_for, -1
        return drawn_for, int(torch.multinomial(row, 1, generator=generator))


def _check(name: str, stream: Stream, streams: Mapping[str, Stream], counts: Mapping[str, int]) -> None:
    """Raise ValueError for an invalid partner, DataError if there are too few images."""
    other = streams.get(stream.partner or "")
    if stream.partner is not None and (other is None or other.source != stream.source or other.partner is not None):
        raise ValueError(
            f"stream {name!r}: found partner {stream.partner!r}; expected another stream that draws the "
            f"{stream.source} images and has no partner itself"
        )
    count, needed = counts.get(stream.source, 0), 1 if stream.partner is None else 2
    if count < needed:
        raise DataError(
            f"stream {name!r} draws {stream.source} images: found {counted(count, 'image')}; expected at least "
            f"{needed}: give more {stream.source} images"
        )
