"""Files that are read by windows: what lacks pixels or unpacks to too many is refused as whole reading refuses it."""

import struct

import numpy as np
import pytest
import tifffile

from fuzzyseg.data import DataError
from fuzzyseg.data.io.image import open_windows, read_image
from fuzzyseg.data.io.mask import read_mask
from fuzzyseg.data.io.pillow import pixel_limit

STORED = np.random.default_rng(0).integers(1, 256, (96, 80, 3)).astype(np.uint8)  # no zero: what is filled up shows
STRIPS, TILES = {"rowsperstrip": 16}, {"tile": (32, 32)}


def write(path, **options):
    tifffile.imwrite(path, STORED, photometric="rgb", **options)
    return path


def overwrite(path, name, values):
    """Numbers of a tag, by their place."""
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        tag = file.pages[0].tags[name]
        kind = {3: "H", 4: "I"}[int(tag.dtype)]
        for place, value in values.items():
            start = tag.valueoffset + place * struct.calcsize(kind)
            data[start : start + struct.calcsize(kind)] = struct.pack(file.byteorder + kind, value)
    path.write_bytes(bytes(data))


def refused(path, words, channels=3):
    """Both ways of reading, wherever the window lies."""
    with pytest.raises(DataError, match=rf"{path.name}: {words}"):
        read_image(path, channels)
    for box in ((0, 0, 8, 8), (0, 0, *STORED.shape[:2])):
        with pytest.raises(DataError, match=rf"{path.name}: {words}"):
            open_windows(path, channels).read(box)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize(
    ("layout", "tag"),
    [(STRIPS, "StripByteCounts"), (STRIPS, "StripOffsets"), (TILES, "TileByteCounts"), (TILES, "TileOffsets")],
)
def test_a_lost_part_is_refused_by_windows_too(tmp_path, compression, layout, tag):
    path = write(tmp_path / "lost.tif", compression=compression, **layout)
    overwrite(path, tag, {3: 0})
    refused(path, "a part of its pixels is lost; copy it again")


def test_a_strip_is_never_left_out_on_purpose(tmp_path):
    path = write(tmp_path / "lost.tif", compression="zlib", **STRIPS)
    for tag in ("StripByteCounts", "StripOffsets"):
        overwrite(path, tag, {2: 0})
    refused(path, "a part of its pixels is lost")


@pytest.mark.parametrize("layout", [STRIPS, TILES], ids=str)
def test_a_file_that_is_cut_short_is_refused_before_any_window_is_read(tmp_path, layout):
    path = write(tmp_path / "short.tif", **layout)
    path.write_bytes(path.read_bytes()[:-1])
    refused(path, "is cut short")


@pytest.mark.parametrize("nodata", [None, 7])
def test_a_tile_that_was_never_written_is_missing_data_both_ways(tmp_path, nodata):
    path = tmp_path / "sparse.tif"
    places = [(y, x) for y in (0, 32, 64) for x in (0, 32)]
    tiles = (None if place == (32, 32) else STORED[place[0] :, place[1] :][:32, :32] for place in places)
    tags = [] if nodata is None else [(42113, "s", 0, str(nodata), True)]  # as GDAL writes it
    options = {"shape": (96, 64, 3), "dtype": np.uint8, "compression": "zlib", "photometric": "rgb", "extratags": tags}
    tifffile.imwrite(path, tiles, **options, **TILES)
    expected = STORED[:, :64].copy()
    expected[32:64, 32:] = nodata or 0
    np.testing.assert_array_equal(read_image(path), expected)
    windows = open_windows(path)
    for box in ((0, 0, 96, 64), (20, 20, 50, 60), (40, 40, 50, 50)):
        np.testing.assert_array_equal(windows.read(box), expected[box[0] : box[2], box[1] : box[3]])


def zeros(path, *shape, **options):
    photometric = options.pop("photometric", "minisblack" if len(shape) == 2 else "rgb")
    tifffile.imwrite(path, np.zeros(shape, np.uint8), compression="zlib", photometric=photometric, **options)
    return path


def test_one_tile_or_strip_unpacks_to_no_more_than_is_decoded_at_once(tmp_path):
    tile = zeros(tmp_path / "tile.tif", 1600, 1600, 3, tile=(1600, 1600))
    strip = zeros(tmp_path / "strip.tif", 1600, 1600, 3, rowsperstrip=1599)
    small = zeros(tmp_path / "small.tif", 1600, 1600, 3, tile=(256, 256))
    flat = zeros(tmp_path / "strips.tif", 1600, 1600, 3, rowsperstrip=100)
    with pixel_limit(2):
        with pytest.raises(DataError, match=r"tile\.tif: has tiles of 1600 x 1600 pixels of 3 bands.*max-megapixels"):
            open_windows(tile)
        with pytest.raises(DataError, match=r"strip\.tif: has strips of 1599 x 1600 pixels.*cut it into smaller tiles"):
            open_windows(strip).read((0, 0, 8, 8))
        for path in (small, flat):
            assert not open_windows(path).read((800, 800, 808, 808)).any()
    with pixel_limit(3):
        for path in (tile, strip):
            assert not open_windows(path).read((0, 0, 8, 8)).any()


@pytest.mark.parametrize("photometric", ["minisblack", "palette"])
def test_a_small_image_in_a_huge_tile_is_refused(tmp_path, photometric):
    """A palette is Pillow's to read, which unpacks the tile as well."""
    table = {"colormap": np.zeros((3, 256), np.uint16)} if photometric == "palette" else {}
    path = zeros(tmp_path / "a.tif", 1600, 1600, tile=(1600, 1600), photometric=photometric, **table)
    overwrite(path, "ImageWidth", {0: 50})
    overwrite(path, "ImageLength", {0: 50})
    with pixel_limit(2):
        for read in (read_image, open_windows, read_mask):
            with pytest.raises(DataError, match=r"a\.tif: has tiles of 1600 x 1600 pixels"):
                read(path)
    assert not read_mask(path).any()


@pytest.mark.parametrize("compression", ["jpeg", "jpeg2000", "png", "webp"])
def test_a_tile_that_says_its_own_size_is_held_to_it(tmp_path, compression):
    path = tmp_path / "a.tif"
    stored = np.zeros((1600, 1600, 3), np.uint8)
    tifffile.imwrite(path, stored, tile=(1600, 1600), compression=compression, photometric="rgb")
    for name in ("ImageWidth", "ImageLength", "TileWidth", "TileLength"):
        overwrite(path, name, {0: 96})
    windows = open_windows(path)
    for most in (1, 2):  # Pillow itself refuses twice its limit
        with pixel_limit(most):
            for read in (lambda: read_image(path), lambda: windows.read((0, 0, 8, 8))):
                with pytest.raises(DataError, match=r"a\.tif: .*decoded at once"):
                    read()


def test_the_parts_of_a_file_are_looked_at_once(tmp_path, monkeypatch):
    windows = open_windows(write(tmp_path / "a.tif", **TILES))
    windows.read((0, 0, 8, 8))
    monkeypatch.delattr("fuzzyseg.data.io.tiff._check_page")
    np.testing.assert_array_equal(windows.read((30, 30, 70, 70)), STORED[30:70, 30:70])
