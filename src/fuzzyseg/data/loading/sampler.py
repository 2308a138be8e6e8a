"""Which image each draw takes: a pure function of (seed, stream, number), and of weights published long enough ago.

A stream without partner goes through its source in seeded permutations, epoch after epoch. A partner stream goes, in
each epoch, through the other stream's permutation in another order that leaves no place as it is (a uniform draw among
such orders): at every number the two have different images, and the partner, too, sees each image once an epoch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from fuzzyseg.data.sample import DataError
from fuzzyseg.data.views import Stream

PUBLISH_DELAY = 16
"""Weights published at step n steer the draws from step n + 16 on: more steps than are ever drawn ahead."""


def _hash(*parts: object) -> int:
    """A whole number below 2**62, the same in every process and version of Python."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 2


def _generator(*parts: object) -> torch.Generator:
    return torch.Generator().manual_seed(_hash(*parts))


def draw_seed(seed: int, stream: str, number: int) -> int:
    """The seed of one sample, below 2**62."""
    return _hash("sample", seed, stream, number)


@lru_cache(maxsize=16)
def permutation(seed: int, stream: str, epoch: int, n: int) -> Tensor:
    """The order (n,) in which a stream sees its n images in an epoch. Do not write into it."""
    return torch.randperm(n, generator=_generator("permutation", seed, stream, epoch))


@lru_cache(maxsize=16)
def derangement(seed: int, stream: str, epoch: int, n: int) -> Tensor:
    """A permutation (n,) that leaves no place as it is, n >= 2. Do not write into it.

    Permutations are drawn until one fits, so all that fit are equally likely; about one in 2.7 does.
    """
    generator = _generator("derangement", seed, stream, epoch)
    places = torch.arange(n)
    while bool(((order := torch.randperm(n, generator=generator)) == places).any()):
        pass
    return order


def index_at(seed: int, stream: str, number: int, n: int, partner: str | None = None) -> int:
    """The place in the source, from 0 to n - 1, of the stream's draw `number`; partner: whose list it goes through."""
    epoch, place = divmod(number, n)
    if partner is None:
        return int(permutation(seed, stream, epoch, n)[place])
    return int(permutation(seed, partner, epoch, n)[derangement(seed, stream, epoch, n)[place]])


@dataclass(frozen=True)
class Draw:
    """One draw: place in the source, the sample's own seed, and the class it was drawn for (-1: none)."""

    index: int
    seed: int
    drawn_for: int


class Draws:
    """What each stream draws, and the weights that steer it.

    streams: by name. counts: images per source. batch: draws per step. balance: source -> weights (C,N) that steer its
    streams from the first draw on, wherever no others are published. Raises DataError where a source has too few
    images, ValueError where a partner makes no sense.
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
        """The stream's draw `number`, from 0; it belongs to step number // batch.

        With weights in force, a class is drawn in proportion to the sum of its row, and then an image by that row. So
        the method decides how often each class is drawn for: rows that sum to 1 are drawn for evenly, and a class
        whose row is 0 is never drawn for. Where the class has no image to offer but the one that the other stream of
        a pair has, the plain draw is taken, still for that class; weights that are all 0 steer nothing. Where the
        other stream of a pair was steered, its partner passes over the image that the other has and takes the next
        one of its own order.
        """
        spec = self._streams[stream]
        n = self._counts[spec.source]
        taken = self.at(spec.partner, number).index if spec.partner else -1
        drawn_for, index = -1, -1
        weights = self._in_force(stream, number // self._batch)
        if weights is not None:
            drawn_for, index = self._steered(weights, taken, stream, number)
        following = number
        while index in (-1, taken):
            # the epoch's list as a ring: n >= 2 different images, so the second look finds another one
            place = number - number % n + following % n
            index = index_at(self._seed, stream, place, n, spec.partner)
            following += 1
        return Draw(index, draw_seed(self._seed, stream, number), drawn_for)

    def publish(self, stream: str, step: int, weights: Tensor) -> None:
        """Weights (C,N), N images of the stream's source, that steer its draws from step + 16 on.

        They are copied. What no later step can need is forgotten: publish in the order of the steps. Raises ValueError.
        """
        published = self._of(stream)
        n = self._counts[self._streams[stream].source]
        if weights.dim() != 2 or weights.shape[0] < 1 or weights.shape[1] != n:
            raise ValueError(
                f"stream {stream!r}: found weights of shape {tuple(weights.shape)}; expected (classes, {n})"
            )
        weights = weights.detach().to("cpu", torch.float32, copy=True)
        if not bool((weights >= 0).all() and weights.isfinite().all()):
            raise ValueError(f"stream {stream!r}: found weights that are negative or not finite")
        if published and step < max(published):
            raise ValueError(f"stream {stream!r}: found weights of step {step} after those of step {max(published)}")
        published[step] = weights
        oldest = max((old for old in published if old <= step - PUBLISH_DELAY), default=step - PUBLISH_DELAY)
        self._published[stream] = {at: value for at, value in published.items() if at >= oldest}

    def state_dict(self) -> dict[str, dict[int, Tensor]]:
        """The weights that steer draws still to come: stream -> step of publication -> (C,N)."""
        return {stream: dict(published) for stream, published in self._published.items()}

    def load_state_dict(self, state: Mapping[str, Mapping[int, Tensor]]) -> None:
        """Takes what `state_dict` gave, in place of all that was published. Raises ValueError on an unknown stream."""
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

    def _in_force(self, stream: str, step: int) -> Tensor | None:
        published = self._published[stream]
        newest = max((at for at in published if at <= step - PUBLISH_DELAY), default=None)
        return self._balance.get(self._streams[stream].source) if newest is None else published[newest]

    def _steered(self, weights: Tensor, taken: int, stream: str, number: int) -> tuple[int, int]:
        """Class and image (-1: the class has none to offer) of a steered draw; never the image that is taken."""
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
    """Raises unless the stream can draw what it promises."""
    n = counts.get(stream.source, 0)
    if n == 0:
        raise DataError(f"stream {name!r} draws {stream.source} images: found none; expected one at least, add images")
    if stream.partner is None:
        return
    other = streams.get(stream.partner)
    if other is None or other.source != stream.source or other.partner is not None:
        raise ValueError(
            f"stream {name!r}: found partner {stream.partner!r}; expected another stream that draws the "
            f"{stream.source} images and is not itself the partner of one"
        )
    if n < 2:
        raise DataError(
            f"stream {name!r} pairs different {stream.source} images: found {n} image; expected two at least, "
            f"give more {stream.source} images"
        )
