"""TIFF files, whole and by windows: damage, decompression bombs, hostile files, with and without rasterio."""

import struct
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from rasterio.errors import RasterioIOError

from fuzzyseg.data import DataError
from fuzzyseg.data.io.header import file_size, read_header
from fuzzyseg.data.io.image import Levels, open_windows, read_image, read_native
from fuzzyseg.data.io.mask import read_mask
from fuzzyseg.data.io.pillow import pixel_limit
from fuzzyseg.data.io.raster import gdal_read, open_raster

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
    for read in (read_image, open_windows):
        with pytest.raises(DataError, match=rf"{path.name}: {words}"):
            read(path, channels)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize(
    ("layout", "tag"),
    [(STRIPS, "StripByteCounts"), (STRIPS, "StripOffsets"), (TILES, "TileByteCounts"), (TILES, "TileOffsets")],
)
def test_a_lost_part_is_refused(tmp_path, compression, layout, tag):
    path = write(tmp_path / "lost.tif", compression=compression, **layout)
    overwrite(path, tag, {3: 0})
    refused(path, "some of its pixels are missing; copy it again")


def test_a_strip_is_never_left_out_on_purpose(tmp_path):
    path = write(tmp_path / "lost.tif", compression="zlib", **STRIPS)
    for tag in ("StripByteCounts", "StripOffsets"):
        overwrite(path, tag, {2: 0})
    refused(path, "some of its pixels are missing")


@pytest.mark.parametrize("layout", [STRIPS, TILES], ids=str)
def test_a_file_that_is_cut_short_is_refused_before_any_window_is_read(tmp_path, layout):
    path = write(tmp_path / "short.tif", **layout)
    path.write_bytes(path.read_bytes()[:-1])
    refused(path, "is truncated")


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
        with pytest.raises(DataError, match=r"tile\.tif: has tiles of 1600 x 1600 pixels.*max-megapixels"):
            open_windows(tile)
        assert open_windows(strip) is None
        with pytest.raises(DataError, match=r"strip\.tif: has 1600 x 1600 pixels.*max-megapixels"):
            read_image(strip)
        for path in (small, flat):
            assert not open_windows(path).read((800, 800, 808, 808)).any()
    with pixel_limit(3):
        assert not open_windows(strip).read((0, 0, 8, 8)).any()
        assert open_windows(tile) is None
        assert not read_image(tile).any()


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


@pytest.mark.parametrize("compression", ["jpeg", "webp"])
def test_a_tile_with_another_size_than_the_header_says_is_refused(tmp_path, compression):
    path = tmp_path / "a.tif"
    stored = np.zeros((1600, 1600, 3), np.uint8)
    tifffile.imwrite(path, stored, tile=(1600, 1600), compression=compression, photometric="rgb")
    for name in ("ImageWidth", "ImageLength", "TileWidth", "TileLength"):
        overwrite(path, name, {0: 96})
    for box in (None, (0, 0, 8, 8)):
        with pytest.raises(DataError, match=r"a\.tif: cannot be decoded"):
            open_raster(path).read(box)


VRT = """<VRTDataset rasterXSize="80" rasterYSize="96"><VRTRasterBand dataType="Byte" band="1">
<SimpleSource><SourceFilename>{source}</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"""


def test_a_virtual_file_of_gdal_is_never_opened(tmp_path):
    """It names other files, or addresses in a network, whose pixels would be read."""
    write(tmp_path / "secret.tif")
    for name in ("a.tif", "a.vrt", "a.png"):
        path = tmp_path / name
        path.write_text(VRT.format(source=tmp_path / "secret.tif"))
        for read in (read_image, read_mask, file_size):
            with pytest.raises(DataError, match=rf"{name}: cannot be decoded"):
                read(path)
        with pytest.raises(RasterioIOError):
            gdal_read(path, "GTiff")
    for name in ("/vsicurl/http://localhost/a.tif", "https://localhost/a.tif"):
        with pytest.raises(DataError, match="cannot be read"):
            read_image(Path(name))


def test_files_beside_the_image_are_not_read(tmp_path):
    path = write(tmp_path / "a.tif", **TILES)
    (tmp_path / "a.tif.aux.xml").write_text(
        '<PAMDataset><PAMRasterBand band="1"><NoDataValue>7</NoDataValue></PAMRasterBand></PAMDataset>'
    )
    (tmp_path / "a.tif.msk").write_text("no mask")
    assert open_raster(path).nodata is None
    np.testing.assert_array_equal(open_raster(path).read(), STORED)


def test_the_header_tells_blocks_and_missing_data(tmp_path):
    path = write(tmp_path / "a.tif", **TILES, extratags=[(42113, "s", 0, "99", True)])
    result = open_raster(path)
    assert (result.size, result.bands, result.dtype, result.block, result.nodata) == (
        (96, 80),
        3,
        np.uint8,
        (32, 32),
        99,
    )
    impossible = write(tmp_path / "d.tif", **TILES, extratags=[(42113, "s", 0, "-9999", True)])
    assert open_raster(impossible).nodata is None
    assert open_raster(write(tmp_path / "b.tif", **STRIPS)).block == (16, 80)
    assert open_raster(write(tmp_path / "c.tif")).windowed is False


@pytest.mark.parametrize("endian", ["<", ">"])
def test_both_byte_orders_and_64_bit_offsets(tmp_path, endian):
    deep = STORED.astype(np.uint16) * 257
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, deep, photometric="rgb", byteorder=endian, bigtiff=endian == "<", **TILES)
    np.testing.assert_array_equal(open_raster(path).read((5, 6, 70, 71)), deep[5:70, 6:71])


def test_a_thumbnail_behind_the_image_is_no_band(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(STORED, photometric="rgb")
        file.write(STORED[::4, ::4], photometric="rgb")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), STORED)


@pytest.fixture
def no_rasterio(monkeypatch):
    monkeypatch.setattr("fuzzyseg.data.io.raster.find_spec", lambda name: None)


def test_ordinary_tiff_is_the_same_without_rasterio(tmp_path, request):
    rgba = np.dstack([STORED, STORED[..., 0]])
    kinds = {
        "rgb": (STORED, {"photometric": "rgb", "compression": "zlib"}),
        "grey": (STORED[..., 0], TILES),
        "deep": (STORED[..., 0].astype(np.uint16) * 257, STRIPS),
        "real": (STORED[..., 0].astype(np.float32), {}),
        "alpha": (rgba, {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
        "turned": (STORED, {"photometric": "rgb", "extratags": [(274, "H", 1, 6, True)]}),
    }
    for name, (array, options) in kinds.items():
        tifffile.imwrite(tmp_path / f"{name}.tif", array, **options)

    def everything():
        paths = [tmp_path / f"{name}.tif" for name in kinds]
        channels = [1 if name in ("grey", "deep", "real") else 3 for name in kinds]
        headers = [read_header(path) for path in paths]
        return (
            [read_native(path, count) for path, count in zip(paths, channels, strict=True)],
            [(head.size, head.bands, head.dtype, head.alpha, head.orientation) for head in headers],
        )

    before = everything()
    request.getfixturevalue("no_rasterio")
    after = everything()
    assert after[1] == before[1]
    for one, other in zip(before[0], after[0], strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    assert open_windows(tmp_path / "grey.tif") is None


def test_what_needs_rasterio_names_the_extra(tmp_path, no_rasterio):
    tifffile.imwrite(tmp_path / "bands.tif", STORED.repeat(2, 2), photometric="minisblack", planarconfig="contig")
    tifffile.imwrite(tmp_path / "deep.tif", STORED.astype(np.uint16), photometric="rgb")
    (tmp_path / "deep.png").write_bytes(imagecodecs.png_encode(STORED.astype(np.uint16) * 257))
    tifffile.imwrite(tmp_path / "stack.tif", np.moveaxis(STORED, -1, 0), photometric="minisblack")
    for name in ("bands.tif", "deep.tif", "stack.tif", "deep.png"):
        with pytest.raises(DataError, match=rf"{name}: .*pip install fuzzyseg\[geo\]"):
            read_image(tmp_path / name, levels=Levels())
    assert read_image(tmp_path / "deep.png").dtype == np.uint8
