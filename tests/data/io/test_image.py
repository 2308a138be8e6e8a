"""Images as they come: bands, bits, orientation, windows; and what is said where one cannot be used."""

import io
import warnings

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from fuzzyseg.data import DataError, Item, Reader
from fuzzyseg.data.io.header import file_size, read_header
from fuzzyseg.data.io.image import Levels, open_windows, read_image, read_native
from fuzzyseg.data.io.mask import read_mask


def numbers(height=20, width=30, bands=5, dtype=np.uint16, seed=0):
    high = 1000 if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max
    return (np.random.default_rng(seed).random((height, width, bands)) * high).astype(dtype)


def write(path, array, **options):
    """As tifffile or numpy write it; bands are the last axis."""
    if path.suffix == ".npy":
        np.save(path, array)
    elif array.shape[2] == 1:
        tifffile.imwrite(path, array[..., 0], **options)
    elif array.shape[2] == 3:
        tifffile.imwrite(path, array, photometric="rgb", **options)
    else:
        tifffile.imwrite(path, array, photometric="minisblack", planarconfig="contig", **options)
    return path


@pytest.mark.parametrize("name", ["a.tif", "a.npy"])
@pytest.mark.parametrize("bands", [2, 4, 5, 12])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
def test_any_number_of_bands_and_bits(tmp_path, name, bands, dtype):
    stored = numbers(bands=bands, dtype=dtype)
    path = write(tmp_path / name, stored)
    head = read_header(path)
    assert (head.size, head.bands, head.dtype) == ((20, 30), bands, np.dtype(dtype).name)
    np.testing.assert_array_equal(read_native(path, bands), stored)
    if dtype == np.uint8:
        np.testing.assert_array_equal(read_image(path, bands), stored)
    elif dtype == np.uint16:
        np.testing.assert_array_equal(read_image(path, bands), stored >> 8)
        result = read_image(path, bands, levels=Levels())
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, stored / 65535, rtol=1e-6)
    else:
        with pytest.raises(DataError, match=rf"{name}: found (16|32)-bit pixels"):
            read_image(path, bands)
        with pytest.raises(DataError, match=r"data\.low and data\.high"):
            read_image(path, bands, levels=Levels())
        levels = Levels(tuple(range(bands)), tuple(range(10, 10 + bands)))
        result = read_image(path, bands, levels=levels)
        np.testing.assert_allclose(result, (stored - np.arange(bands)) / 10, rtol=1e-5)


def test_bands_apart_bands_as_pages_and_bands_first(tmp_path):
    stored = numbers()
    first = np.moveaxis(stored, -1, 0)
    tifffile.imwrite(tmp_path / "apart.tif", first, photometric="minisblack", planarconfig="separate")
    tifffile.imwrite(tmp_path / "pages.tif", first, photometric="minisblack")
    np.save(tmp_path / "first.npy", first)
    for path in sorted(tmp_path.iterdir()):
        np.testing.assert_array_equal(read_native(path, 5), stored)
        assert file_size(path) == (20, 30)


def test_which_bands_are_used(tmp_path):
    stored = numbers(dtype=np.uint8)
    path = write(tmp_path / "a.tif", stored)
    np.testing.assert_array_equal(read_image(path, 3, bands=[4, 3, 1]), stored[..., [3, 2, 0]])
    for channels, bands in ((3, [1, 2]), (2, [0, 1]), (1, [6])):
        with pytest.raises(DataError, match=r"a\.tif: has 5 bands; found data\.bands=.*from 1 to 5"):
            read_image(path, channels, bands=bands)
    words = r"has 5 bands, but the network takes 3 channels.*network\.channels=5.*data\.bands=\[1, 2, 3\]; a trained"
    with pytest.raises(DataError, match=words):
        read_image(path, 3)


def test_a_fourth_band_is_dropped_only_where_it_is_opacity(tmp_path):
    stored = numbers(bands=4, dtype=np.uint8)
    tifffile.imwrite(tmp_path / "alpha.tif", stored, photometric="rgb", extrasamples=["unassalpha"])
    tifffile.imwrite(tmp_path / "infrared.tif", stored, photometric="rgb", extrasamples=["unspecified"])
    np.testing.assert_array_equal(read_image(tmp_path / "alpha.tif"), stored[..., :3])
    assert read_header(tmp_path / "alpha.tif").alpha
    with pytest.raises(DataError, match=r"infrared\.tif: has 4 bands, but the network takes 3 channels"):
        read_image(tmp_path / "infrared.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "infrared.tif", 4), stored)


@pytest.mark.parametrize("bands", [1, 3, 4])
def test_png_of_16_bits_is_exact_where_units_are_asked_for(tmp_path, bands):
    stored = numbers(bands=bands)
    path = tmp_path / "deep.png"
    path.write_bytes(imagecodecs.png_encode(stored.squeeze()))
    assert (read_header(path).dtype, read_header(path).bands) == ("uint16", bands)
    kept = stored[..., :3] if bands == 4 else stored
    channels = kept.shape[2]
    np.testing.assert_allclose(read_image(path, channels, levels=Levels()), kept / 65535, rtol=1e-6)
    np.testing.assert_array_equal(read_image(path, channels), kept >> 8)
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 4
    path.write_bytes(bytes(damaged))
    with pytest.raises(DataError, match=r"deep\.png"):
        read_image(path, channels, levels=Levels())


def test_missing_data_is_0_in_units(tmp_path):
    stored = np.array([[[1.0, np.nan], [np.inf, 4.0]], [[2.0, 2.0], [2.0, 2.0]]], np.float32)
    path = write(tmp_path / "a.npy", stored)
    result = read_image(path, 2, levels=Levels((0.0, 2.0), (2.0, 4.0)))
    assert result.tolist() == [[[0.5, 0.0], [0.0, 1.0]], [[1.0, 0.0], [1.0, 0.0]]]


def photo(height=24, width=40):
    """Smooth, so that JPEG keeps it within a few grey levels."""
    y, x = np.mgrid[:height, :width]
    return np.dstack([6 * y, 5 * x, 255 - 5 * y]).astype(np.uint8)


def test_jpeg_in_colour_grey_and_cmyk(tmp_path):
    Image.fromarray(photo()).save(tmp_path / "rgb.jpg", quality=98)
    Image.fromarray(photo()[..., 0]).save(tmp_path / "grey.jpg", quality=98)
    Image.fromarray(photo()).convert("CMYK").save(tmp_path / "cmyk.jpg", quality=98)
    for name in ("rgb.jpg", "cmyk.jpg"):
        assert np.abs(read_image(tmp_path / name).astype(int) - photo()).max() < 25
        assert read_header(tmp_path / name).bands == 3
    grey = read_image(tmp_path / "grey.jpg").astype(int)
    assert np.abs(grey - photo()[..., :1]).max() < 6
    assert read_image(tmp_path / "grey.jpg", 1).shape == (24, 40, 1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_turns_jpeg_tiff_and_mask_alike(tmp_path, orientation):
    def upright(a):  # from the tag's definition: where row 0 and column 0 of the file belong
        a = a.swapaxes(0, 1) if orientation > 4 else a
        rows = -1 if orientation in (3, 4, 7, 8) else 1
        return a[::rows, :: -1 if orientation in (2, 3, 6, 7) else 1]

    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(photo()).save(tmp_path / "a.jpg", exif=exif, quality=98)
    mask = (np.arange(24 * 40).reshape(24, 40) % 7).astype(np.uint8)
    Image.fromarray(mask).save(tmp_path / "m.png", exif=exif)
    stored = numbers(24, 40)
    write(tmp_path / "a.tif", stored, extratags=[(0x0112, "H", 1, orientation, True)])
    tifffile.imwrite(tmp_path / "rgb.tif", photo(), photometric="rgb", extratags=[(0x0112, "H", 1, orientation, True)])
    tifffile.imwrite(tmp_path / "m.tif", mask, extratags=[(0x0112, "H", 1, orientation, True)])
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - upright(photo())).max() < 12
    np.testing.assert_array_equal(read_image(tmp_path / "rgb.tif"), upright(photo()))
    np.testing.assert_array_equal(read_native(tmp_path / "a.tif", 5), upright(stored))
    for name in ("m.png", "m.tif"):
        np.testing.assert_array_equal(read_mask(tmp_path / name), upright(mask))
    for path in tmp_path.iterdir():
        assert file_size(path) == upright(mask).shape
        assert read_header(path).orientation == orientation
    image, result = Reader(3, 7, 255).read(Item(tmp_path / "a.jpg", tmp_path / "m.png", "a"), True)
    assert image.shape[1:] == result.shape


LAYOUTS = [{"tile": (32, 48)}, {"rowsperstrip": 7}, {"tile": (16, 16), "compression": "zlib", "predictor": True}]
LAYOUTS += [{"rowsperstrip": 9, "compression": "lzw"}, {"tile": (64, 64), "compression": "zstd"}]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("bands", [1, 3, 5])
@pytest.mark.parametrize("apart", [False, True])
def test_windows_are_parts_of_the_whole(tmp_path, layout, bands, apart):
    stored = numbers(70, 101, bands)
    path = tmp_path / "a.tif"
    if apart and bands > 1:
        first = np.moveaxis(stored, -1, 0)
        tifffile.imwrite(path, first, photometric="minisblack", planarconfig="separate", **layout)
    else:
        write(path, stored, **layout)
    windows = open_windows(path, bands, levels=Levels())
    assert windows.size == (70, 101)
    whole = read_image(path, bands, levels=Levels())
    for box in [(0, 0, 70, 101), (31, 47, 33, 49), (69, 100, 70, 101), (5, 0, 40, 101), (20, 30, 21, 31)]:
        np.testing.assert_array_equal(windows.read(box), whole[box[0] : box[2], box[1] : box[3]])


def test_a_window_decodes_no_more_than_it_touches(tmp_path):
    stored = numbers(256, 256, 4, np.uint8)
    write(tmp_path / "a.tif", stored, tile=(64, 64), compression="zlib")
    data = bytearray((tmp_path / "a.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        offset, count = file.pages[0].dataoffsets[15], file.pages[0].databytecounts[15]
    data[offset : offset + count] = bytes(count)  # the last tile is damaged
    (tmp_path / "a.tif").write_bytes(bytes(data))
    windows = open_windows(tmp_path / "a.tif", 4)
    np.testing.assert_array_equal(windows.read((10, 10, 180, 250)), stored[10:180, 10:250])
    with pytest.raises(DataError, match=r"a\.tif"):
        windows.read((190, 190, 200, 200))
    with pytest.raises(DataError, match=r"a\.tif"):
        read_image(tmp_path / "a.tif", 4)


def test_what_is_not_read_by_windows(tmp_path):
    Image.fromarray(photo()).save(tmp_path / "a.png")
    assert open_windows(tmp_path / "a.png") is None
    np.save(tmp_path / "a.npy", numbers())
    np.testing.assert_array_equal(
        open_windows(tmp_path / "a.npy", 5).read((3, 4, 9, 8)), read_image(tmp_path / "a.npy", 5)[3:9, 4:8]
    )


def test_stacks_archives_and_texts_are_told_apart(tmp_path):
    tifffile.imwrite(tmp_path / "stack.tif", np.zeros((4, 3, 8, 9), np.uint8), photometric="minisblack")
    with pytest.raises(DataError, match=r"stack\.tif: has 12 bands"):
        read_image(tmp_path / "stack.tif")
    np.save(tmp_path / "objects.npy", np.array([{}, {}], dtype=object))
    with pytest.raises(DataError, match=r"objects\.npy"):
        read_image(tmp_path / "objects.npy")
    np.save(tmp_path / "flat.npy", np.zeros(5))
    with pytest.raises(DataError, match=r"flat\.npy: found float64 values of shape \(5,\); expected numbers"):
        read_image(tmp_path / "flat.npy")
    (tmp_path / "text.tif").write_text("hello")
    (tmp_path / "text.npy").write_text("hello")
    Image.fromarray(photo()).save(tmp_path / "png.tif", "PNG")
    for name in ("text.tif", "text.npy"):
        with pytest.raises(DataError, match=name):
            read_image(tmp_path / name)
        with pytest.raises(DataError, match=name):
            file_size(tmp_path / name)
    np.testing.assert_array_equal(read_image(tmp_path / "png.tif"), photo())


@pytest.mark.parametrize("options", [{}, {"tile": (16, 16)}, {"rowsperstrip": 4, "compression": "zlib"}], ids=str)
def test_a_tiff_that_is_cut_short_is_never_filled_up(tmp_path, options):
    stored = numbers(40, 40) | 1  # no zero anywhere
    data = write(tmp_path / "a.tif", stored, **options).read_bytes()
    for share in (0.3, 0.6, 0.9, 0.99):
        (tmp_path / "a.tif").write_bytes(data[: int(len(data) * share)])
        with pytest.raises(DataError, match=r"a\.tif"):
            read_image(tmp_path / "a.tif", 5)


def test_index_masks_in_tiff_and_numpy(tmp_path):
    index = np.arange(24).reshape(4, 6)
    for dtype in (np.uint8, np.uint16, np.int32, np.float32):
        tifffile.imwrite(tmp_path / "m.tif", index.astype(dtype))
        np.save(tmp_path / "m.npy", index.astype(dtype))
        for name in ("m.tif", "m.npy"):
            result = read_mask(tmp_path / name)
            assert result.dtype.kind in "iu"
            np.testing.assert_array_equal(result, index)
    np.save(tmp_path / "m.npy", index / 2)
    with pytest.raises(DataError, match=r"m\.npy: found 0\.5, 1\.5.* in 12 pixels; expected class indices"):
        read_mask(tmp_path / "m.npy")


@pytest.mark.parametrize("size", [None, (9, 11)])
def test_the_reader_gives_units_where_there_are_levels(tmp_path, size):
    stored = numbers(40, 30)
    path = write(tmp_path / "a.tif", stored)
    reader = Reader(3, 2, 255, image_size=size, cache_bytes=10**6, bands=(5, 1, 2), levels=Levels())
    for _ in range(2):
        image, _ = reader.read(Item(path, None, "a"), False)
        assert (str(image.dtype), tuple(image.shape)) == ("torch.float32", (3, *(size or (40, 30))))
        expected = (stored[..., [4, 0, 1]] / 65535).astype(np.float32)
        if size is not None:
            bands = [Image.fromarray(np.ascontiguousarray(expected[..., i])) for i in range(3)]
            expected = np.dstack([np.array(b.resize(size[::-1], Image.Resampling.BILINEAR)) for b in bands])
        np.testing.assert_allclose(image.numpy(), expected.transpose(2, 0, 1), rtol=1e-5)


def encoded(kind):
    buffer = io.BytesIO()
    array = numbers(24, 32, dtype=np.uint8)
    if kind == "npy":
        np.save(buffer, array)
    elif kind == "png16":
        return imagecodecs.png_encode(numbers(24, 32, 3))
    else:
        options = {"tile": (16, 16), "compression": "lzw"} if kind == "lzw.tif" else {}
        tifffile.imwrite(buffer, array, photometric="minisblack", planarconfig="contig", **options)
    return buffer.getvalue()


def complaint(read, *arguments, **options):
    """The words of the DataError, None where it was read; anything else that is raised fails the test."""
    try:
        read(*arguments, **options)
    except DataError as error:
        return str(error)
    return None


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["npy", "tif", "lzw.tif", "png16"]),
    place=st.floats(0, 1, exclude_max=True),
    noise=st.binary(max_size=12),
    cut=st.booleans(),
)
def test_damaged_files_of_many_bands_are_read_or_reported_by_name(tmp_path, kind, place, noise, cut):
    data = encoded(kind)
    # half of the damage goes into the header, where it hurts most
    start = int(place * len(data)) if place < 0.5 else int((place - 0.5) * 2 * min(len(data), 400))
    path = tmp_path / f"damaged.{kind.split('.')[-1].removesuffix('16')}"
    path.write_bytes(data[:start] if cut else data[:start] + noise + data[start + len(noise) :])
    levels = Levels() if kind == "png16" else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        complaints = [complaint(read_header, path), complaint(read_image, path, 3 if levels else 5, levels=levels)]
    assert all(text is None or "damaged." in text for text in complaints)
