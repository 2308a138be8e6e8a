"""Masks as polygons: one ring per connected region, along the edges of its pixels."""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fuzzyseg.data import DataError
from fuzzyseg.data.io.image import Pixels

Ring = NDArray[np.float64]
"""Corners (N,2) as x, y in pixels, 0 at the edge of the image; the last is connected to the first."""


def check_polygons() -> None:
    """Raise DataError if rasterio is not installed."""
    if find_spec("rasterio") is None:
        raise DataError("polygons need rasterio: pip install 'fuzzyseg[geo]'; cvat and labelstudio do not")


def polygons(mask: Pixels, leave_out: list[int]) -> Iterator[tuple[int, Ring]]:
    """Yield the class index and ring of each 4-connected region. leave_out: values that are not traced.

    Filling a ring gives the region's pixels. A hole is connected to the ring around it by a bridge, traversed both
    ways.
    """
    from rasterio.features import shapes

    for shape, value in shapes(mask, mask=~np.isin(mask, leave_out), connectivity=4):
        outer, *holes = (np.asarray(ring[:-1], float) for ring in shape["coordinates"])
        yield int(value), _bridged(outer, holes)


def _bridged(ring: Ring, holes: list[Ring]) -> Ring:
    """Merge a ring and its holes into one ring.

    Starting with the topmost hole, a vertical line connects the middle of a pixel edge at the top of the hole to the
    nearest edge above it, which belongs to the ring or to a hole that is already merged.
    """
    for hole in sorted(holes, key=lambda hole: float(hole[:, 1].min())):
        top, start = hole[:, 1].min(), np.roll(hole, -1, 0)
        place = int(np.flatnonzero((hole[:, 1] == top) & (start[:, 1] == top))[0])
        x = min(hole[place, 0], start[place, 0]) + 0.5
        following = np.roll(ring, -1, 0)
        level = (ring[:, 1] == following[:, 1]) & (ring[:, 1] <= top)
        level &= (np.minimum(ring[:, 0], following[:, 0]) < x) & (x < np.maximum(ring[:, 0], following[:, 0]))
        above = np.flatnonzero(level)
        edge = int(above[ring[above, 1].argmax()])
        up, down = [[x, ring[edge, 1]]], [[x, top]]
        around = np.roll(hole, -place - 1, 0)  # from the end of the opened edge around to its start
        ring = np.concatenate([ring[: edge + 1], up, down, around, down, up, ring[edge + 1 :]])
    return ring


def through_centres(ring: Ring) -> Ring:
    """Return a ring through the centres of the region's outermost pixels, which have integer coordinates.

    It represents the region in tools that include the pixels under the outline, such as LabelMe.
    """
    step = np.sign(np.roll(ring, -1, 0) - ring)
    bridge = (ring[:, 0] % 1 == 0.5) & (step[:, 0] == 0)
    area = (ring[:, 0] * np.roll(ring[:, 1], -1) - np.roll(ring[:, 0], -1) * ring[:, 1]).sum()
    inward: Any = np.stack([-step[:, 1], step[:, 0]], 1) * np.sign(area) * ~bridge[:, None]
    centres: Ring = ring - 0.5 + 0.5 * np.clip(inward + np.roll(inward, 1, 0), -1, 1)
    return centres
