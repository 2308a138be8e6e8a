"""The colour of an encoding that lies nearest to one that is off."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fuzzyseg.data.sample import Colour, Encoding


def nearest_values(packed: NDArray[np.int32], encoding: Encoding) -> NDArray[np.int32]:
    """(N,) values of the nearest colours of the encoding, as `nearest_colour` tells them one by one."""
    assert encoding.colours is not None
    wanted = np.stack([packed >> 16, packed >> 8 & 255, packed & 255], 1)
    values = np.zeros(len(packed), np.int32)
    best = np.full(len(packed), np.iinfo(np.int32).max, np.int32)
    for r, g, b, value in encoding.colours:  # one by one: a lossy file holds a hundred thousand colours
        distance = ((wanted - np.array((r, g, b), np.int32)) ** 2).sum(1, dtype=np.int32)
        closer = distance < best
        values[closer], best[closer] = value, distance[closer]
    return values


def nearest_colour(colour: Colour, encoding: Encoding) -> tuple[int, Colour, float]:
    """Value, colour and distance (Euclidean, in RGB) of the nearest colour of the encoding; the first of equals."""
    assert encoding.colours is not None
    table = np.array(encoding.colours)
    distances = np.sqrt(((table[:, :3] - np.array(colour)) ** 2).sum(1))
    best = int(distances.argmin())
    r, g, b, value = encoding.colours[best]
    return value, (r, g, b), float(distances[best])
