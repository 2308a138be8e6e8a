"""Sampler: which image each draw takes, a function of (seed, stream, number) and of weights published before.

A stream goes through its source in seeded permutations, one per epoch. A partner stream goes through the same
permutations in another order, a random derangement: at every number the two have different images, and both see each
image once per epoch.
"""

from __future__ import annotations

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
"""Weights published at step n steer the draws from step n + 16 on: more steps than the loader reads ahead."""


def _hash(*parts: object) -> int:
    """An integer below 2**62, the same in every process and version of Python."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 2


def _generator(*parts: object) -> torch.Generator:
    return torch.Generator().manual_seed(_hash(*parts))


def draw_seed(seed: int, stream: str, number: int) -> int:
    """The seed of one sample, below 2**62."""
    return _hash("sample", seed, stream, number)


@lru_cache(maxsize=16)
def permutation(seed: int, stream: str, epoch: int, n: int) -> Tensor:
    """The order (n,) of a stream's n images in an epoch. Read-only."""
    return torch.randperm(n, generator=_generator("permutation", seed, stream, epoch))


@lru_cache(maxsize=16)
def derangement(seed: int, stream: str, epoch: int, n: int) -> Tensor:
    """A uniformly random permutation (n,) without fixed points, n >= 2. Read-only.

    Permutations are drawn until one has no fixed point, which about one in 2.7 has.
    """
    generator = _generator("derangement", seed, stream, epoch)
    places = torch.arange(n)
    while bool(((order := torch.randperm(n, generator=generator)) == places).any()):
        pass
    return order


def index_at(seed: int, stream: str, number: int, n: int, partner: str | None = None) -> int:
    """Index in the source, from 0 to n - 1, of the stream's draw `number`. partner: the stream that it follows."""
    epoch, place = divmod(number, n)
    if partner is None:
        return int(permutation(seed, stream, epoch, n)[place])
    return int(permutation(seed, partner, epoch, n)[derangement(seed, stream, epoch, n)[place]])


@dataclass(frozen=True)
class Draw:
    """One draw: index in the source, seed of the sample, and the class it was drawn for (-1: none)."""

    index: int
    seed: int
    drawn_for: int


class Sampler:
    """Draws of each stream, and the weights that steer them.

    streams: by name. counts: images per source. batch: draws per step. balance: source -> weights (C,N) that steer its
    streams until others are published. Raises DataError if a source has too few images, ValueError for an invalid
    partner.
    """

    def __init__(
        self,
        streams: Mapping[str, Stream],
        counts: Mapping[str, int],
        batch: int,
        seed: int,
        balance: Mapping[str, Tensor] | None = None,
    ) -> None:
        for name, stream in streams.items():
            _check(name, stream, streams, counts)
        self._streams = dict(streams)
        self._counts = dict(counts)
        self._batch = batch
        self._seed = seed
        self._balance = dict(balance or {})
        self._published: dict[str, dict[int, Tensor]] = {name: {} for name in streams}

    def at(self, stream: str, number: int) -> Draw:
        """The stream's draw `number`, from 0, which belongs to step number // batch.

        With weights, a class is drawn in proportion to the sum of its row, then an image in proportion to its entry in
        the row: rows of one sum are drawn equally often, a row of zeros never, and weights that are all 0 have no
        effect. If the class has no image but the one that the other stream of a pair has, the unweighted draw is
        taken, still for that class. An unweighted partner skips the image of the other stream and takes the next one
        of its order.
        """
        spec = self._streams[stream]
        n = self._counts[spec.source]
        taken = self.at(spec.partner, number).index if spec.partner else -1
        drawn_for, index = -1, -1
        weights = self._weights(stream, number // self._batch)
        if weights is not None:
            drawn_for, index = self._draw_weighted(weights, taken, stream, number)
        following = number
        while index in (-1, taken):
            # cyclic within the epoch: with n >= 2 different images the second one is another
            place = number - number % n + following % n
            index = index_at(self._seed, stream, place, n, spec.partner)
            following += 1
        return Draw(index, draw_seed(self._seed, stream, number), drawn_for)

    def publish(self, stream: str, step: int, weights: Tensor) -> None:
        """Set weights (C,N), N images of the stream's source, that steer its draws from step + 16 on.

        They are copied. Publish in the order of the steps: weights that no later step needs are dropped. Raises
        ValueError.
        """
        published = self._of(stream)
        n = self._counts[self._streams[stream].source]
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
        """The weights of future draws: stream -> step of publication -> (C,N)."""
        return {stream: dict(published) for stream, published in self._published.items()}

    def load_state_dict(self, state: Mapping[str, Mapping[int, Tensor]]) -> None:
        """Replace all published weights by those of `state_dict`. Raises ValueError for an unknown stream."""
        for stream in self._streams:
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
        return self._balance.get(self._streams[stream].source) if newest is None else published[newest]

    def _draw_weighted(self, weights: Tensor, taken: int, stream: str, number: int) -> tuple[int, int]:
        """Class (-1: none) and image (-1: none) of a weighted draw; never the image `taken`."""
        generator = _generator("steer", self._seed, stream, number)
        wanted = weights.double().sum(1)
        if not bool((wanted > 0).any()):
            return -1, -1
        drawn_for = int(torch.multinomial(wanted, 1, generator=generator))
        row = weights[drawn_for].double()
        if taken >= 0:
            row[taken] = 0
        if not bool((row > 0).any()):
            return drawn_for, -1
        return drawn_for, int(torch.multinomial(row, 1, generator=generator))


def _check(name: str, stream: Stream, streams: Mapping[str, Stream], counts: Mapping[str, int]) -> None:
    """Raises DataError or ValueError for a stream that cannot be drawn."""
    other = streams.get(stream.partner or "")
    if stream.partner is not None and (other is None or other.source != stream.source or other.partner is not None):
        raise ValueError(
            f"stream {name!r}: found partner {stream.partner!r}; expected another stream that draws the "
            f"{stream.source} images and has no partner itself"
        )
    found, needed = counts.get(stream.source, 0), 1 if stream.partner is None else 2
    if found < needed:
        raise DataError(
            f"stream {name!r} draws {stream.source} images: found {counted(found, 'image')}; expected at least "
            f"{needed}: give more {stream.source} images"
        )
