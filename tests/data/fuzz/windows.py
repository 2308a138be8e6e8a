"""Files that are read by windows: what windows give must be what the whole file gives, however it is damaged."""

from __future__ import annotations

import functools
import io
import resource
import struct

import numpy as np
import tifffile
from binary import Wrong, named, npy, tiff
from damage import BINARY, one_bit

from fuzzyseg.data import DataError
from fuzzyseg.data.io.image import open_windows, read_image

H, W, SIDE = 40, 35, 16
STORED = np.random.default_rng(1).integers(1, 256, (H, W, 3)).astype(np.uint8)  # no zero: what is filled up shows
COLOUR = {"photometric": "rgb"}
TILES = {"tile": (SIDE, SIDE)}


def sparse():
    """The tile in the middle was never written; missing data is 7."""
    padded = np.pad(STORED, ((0, -H % SIDE), (0, -W % SIDE), (0, 0)))
    places = [(y, x) for y in range(0, H, SIDE) for x in range(0, W, SIDE)]
    tiles = (None if place == (SIDE, SIDE) else padded[place[0] :, place[1] :][:SIDE, :SIDE] for place in places)
    nodata = [(42113, "s", 0, "7", True)]
    return tiff(tiles, shape=STORED.shape, dtype=np.uint8, compression="zlib", extratags=nodata, **COLOUR, **TILES)


def apart(**options):
    return tiff(np.moveaxis(STORED, -1, 0), planarconfig="separate", **COLOUR, **options)


FILES = {
    "strips.tif": tiff(STORED, rowsperstrip=9, **COLOUR),
    "packed_strips.tif": tiff(STORED, rowsperstrip=9, compression="zlib", predictor=True, **COLOUR),
    "tiles.tif": tiff(STORED, **TILES, **COLOUR),
    "packed_tiles.tif": tiff(STORED, compression="lzw", **TILES, **COLOUR),
    "apart.tif": apart(rowsperstrip=7, compression="zlib"),
    "apart_tiles.tif": apart(**TILES),
    "sparse.tif": sparse(),
    "big.tif": tiff(STORED, compression="zstd", bigtiff=True, byteorder="<", **TILES, **COLOUR),
    "jpeg.tif": tiff(STORED, compression="jpeg", **TILES, **COLOUR),
    "bands.npy": npy(STORED),
}


COUNTS, OFFSETS = ("StripByteCounts", "TileByteCounts"), ("StripOffsets", "TileOffsets")
SIZES = (("TileWidth", "TileLength"), ("TileLength",), ("TileWidth",), ("RowsPerStrip", "ImageLength"))


def _overwritten(data, names, value, place=None):
    """One number of each of these tags becomes `value`: that at place, 0 to 1, of their length; None: all of them."""
    damaged = bytearray(data)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        order = file.byteorder
        for tag in (file.pages[0].tags.get(name) for name in names):
            if tag is None:
                continue
            kind = {3: "H", 4: "I", 16: "Q"}[int(tag.dtype)]
            size = struct.calcsize(kind)
            for number in range(tag.count) if place is None else [int(place * tag.count)]:
                start = tag.valueoffset + number * size
                damaged[start : start + size] = struct.pack(order + kind, min(value, 256**size - 1))
    return bytes(damaged)


def _of_tiff(way):
    """Other files have no such tags."""

    @functools.wraps(way)
    def damaged(rng, data):
        return way(rng, data) if data[:2] in (b"II", b"MM") else one_bit(rng, data)

    return damaged


@_of_tiff
def no_count(rng, data):
    return _overwritten(data, COUNTS, 0, rng.random())


@_of_tiff
def no_place(rng, data):
    return _overwritten(data, OFFSETS, 0, rng.random())


@_of_tiff
def neither(rng, data):
    """As a tile that was never written, which a strip cannot be."""
    return _overwritten(data, COUNTS + OFFSETS, 0, rng.random())


@_of_tiff
def no_counts(rng, data):
    return _overwritten(data, COUNTS, 0)


@_of_tiff
def other_place(rng, data):
    return _overwritten(data, OFFSETS, rng.randrange(2 * len(data)), rng.random())


@_of_tiff
def bomb(rng, data):
    """Tiles or strips that say any size; a multiple of 16, so that no rule about sizes refuses them."""
    return _overwritten(data, rng.choice(SIZES), 16 * rng.choice([4, 60, 1250, 4095]))


WAYS = [*BINARY, no_count, no_place, neither, no_counts, other_place, bomb, bomb]


def boxes(height, width):
    """All of it; parts that meet at no edge of a tile; the last pixel."""
    yield 0, 0, height, width
    for y in range(0, height, 13):
        for x in range(0, width, 19):
            yield y, x, min(y + 13, height), min(x + 19, width)
    yield height - 1, width - 1, height, width


def windows(folder, name, data):
    path = folder / name
    path.write_bytes(data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    whole = opened = None
    try:
        whole = read_image(path)
    except DataError as error:
        named(error, name)
    try:
        opened = open_windows(path)
    except DataError as error:
        named(error, name)
    right = opened is not None and _right(opened, whole, name)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    if grown > 120_000:  # KiB
        raise Wrong(f"took {grown} KiB")
    if opened is None:
        return "reported" if whole is None else "not by windows"
    if not right:
        return "reported"
    path.write_bytes(FILES[name])
    return "as it was" if np.array_equal(whole, read_image(path)) else "as it is"


def _right(opened, whole, name):
    """Whether every window was read; raises where one is not what the whole file holds there."""
    height, width = opened.size
    every = True
    for box in boxes(height, width) if height * width < 10**6 else [(0, 0, 8, 8)]:
        try:
            part = opened.read(box)
        except DataError as error:
            named(error, name)
            every = False
            continue
        if whole is not None and not np.array_equal(part, whole[box[0] : box[2], box[1] : box[3]]):
            raise Wrong(f"window {box} is not what the whole file holds there")
        if whole is None and part.shape[:2] == (height, width):
            raise Wrong("one window of all was read, the whole file is refused")
    return every and whole is not None
