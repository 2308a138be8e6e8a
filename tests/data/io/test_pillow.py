import io
import warnings

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from fuzzyseg.data.io.header import file_size
from fuzzyseg.data.io.image import read_image
from fuzzyseg.data.io.mask import read_mask, save_index_png, values_in
from fuzzyseg.data.io.pillow import pixel_limit
from fuzzyseg.data.io.write import default_colours, overlay
from fuzzyseg.data.sample import DataError


def picture(height=5, width=7, bands=3):
    values = np.random.default_rng(0).integers(0, 256, (height, width, bands))
    return values.astype(np.uint8).squeeze()


def test_rgb_grey_palette_alpha_and_cmyk_become_rgb(tmp_path):
    rgb = picture()
    Image.fromarray(rgb).save(tmp_path / "rgb.png")
    np.testing.assert_array_equal(read_image(tmp_path / "rgb.png"), rgb)

    grey = picture(bands=1)
    Image.fromarray(grey).save(tmp_path / "grey.bmp")
    np.testing.assert_array_equal(read_image(tmp_path / "grey.bmp"), np.repeat(grey[..., None], 3, 2))
    np.testing.assert_array_equal(read_image(tmp_path / "grey.bmp", 1), grey[..., None])

    Image.fromarray(picture(bands=4), "RGBA").save(tmp_path / "alpha.png")
    np.testing.assert_array_equal(read_image(tmp_path / "alpha.png"), picture(bands=4)[..., :3])

    palette = Image.fromarray(np.array([[0, 1], [1, 2]], np.uint8), "P")
    palette.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    palette.save(tmp_path / "palette.png", transparency=b"\x00\xff\xff")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = read_image(tmp_path / "palette.png")
    np.testing.assert_array_equal(result[0], [[10, 20, 30], [40, 50, 60]])

    Image.new("CMYK", (4, 3), (0, 255, 255, 0)).save(tmp_path / "cmyk.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "cmyk.tif"), np.full((3, 4, 3), (255, 0, 0)))


def test_sixteen_bit_images_give_the_high_byte_and_are_not_clipped(tmp_path):
    deep = np.array([[0, 255, 256, 40000, 65535]], dtype=np.uint16)
    for name in ("deep.png", "deep.tif"):
        Image.fromarray(deep).save(tmp_path / name)
        np.testing.assert_array_equal(read_image(tmp_path / name, 1)[..., 0], [[0, 0, 1, 156, 255]])
        assert read_image(tmp_path / name).shape == (1, 5, 3)


def test_float_images_and_other_channel_counts_are_refused_in_words(tmp_path):
    Image.fromarray(np.ones((2, 2), np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(DataError, match=r"float\.tif.*32-bit.*8 or 16"):
        read_image(tmp_path / "float.tif")
    Image.fromarray(picture()).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png: has 3 bands, but the network takes 4 channels.*network\.channels=3"):
        read_image(tmp_path / "a.png", 4)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_turns_image_mask_and_size_alike(tmp_path, orientation):
    stored = picture()
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / "image.png", exif=exif)
    Image.fromarray(stored[..., 0]).save(tmp_path / "mask.png", exif=exif)
    # The eight meanings of the tag, from its definition: where row 0 and column 0 of the file belong.
    expected = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: a.swapaxes(0, 1)[:, ::-1],
        7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
        8: lambda a: a.swapaxes(0, 1)[::-1],
    }[orientation](stored)
    np.testing.assert_array_equal(read_image(tmp_path / "image.png"), expected)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), expected[..., 0])
    assert file_size(tmp_path / "image.png") == expected.shape[:2]


def test_index_masks_keep_their_values(tmp_path):
    index = np.array([[0, 3], [255, 11]], np.uint8)
    Image.fromarray(index).save(tmp_path / "grey.png")
    palette = Image.fromarray(index, "P")
    palette.putpalette(list(range(255, -1, -1)) * 3)
    palette.save(tmp_path / "palette.png")
    for name in ("grey.png", "palette.png"):
        np.testing.assert_array_equal(read_mask(tmp_path / name), index)
    deep = np.array([[0, 1000], [65535, 7]], np.uint16)
    for name in ("deep.png", "deep.tif"):
        Image.fromarray(deep).save(tmp_path / name)
        np.testing.assert_array_equal(read_mask(tmp_path / name), deep)
        assert values_in(read_mask(tmp_path / name), tmp_path / name) == [0, 7, 1000, 65535]
    bits = np.array([[True, False], [False, True]])
    Image.fromarray(bits).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "bits.png"), bits.astype(np.uint8))


def test_colours_are_read_as_they_are_and_lossy_masks_only_where_asked_for(tmp_path):
    for bands in (3, 4):
        Image.fromarray(picture(bands=bands)).save(tmp_path / "colour.png")
        np.testing.assert_array_equal(read_mask(tmp_path / "colour.png"), picture(bands=bands))
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    palette.putpalette([1, 2, 3, 4, 5, 6])
    palette.save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "palette.png", colours=True), [[[1, 2, 3, 255], [4, 5, 6, 255]]])
    Image.fromarray(picture(bands=1)).save(tmp_path / "lossy.jpg")
    with pytest.raises(DataError, match=r"lossy\.jpg.*JPEG.*PNG"):
        read_mask(tmp_path / "lossy.jpg")
    assert read_mask(tmp_path / "lossy.jpg", lossy=True).shape == (5, 7)


def test_saved_index_png_is_read_back(tmp_path):
    mask = np.arange(256).reshape(16, 16)
    save_index_png(mask, tmp_path / "new" / "mask.png")
    assert Image.open(tmp_path / "new" / "mask.png").mode == "L"
    np.testing.assert_array_equal(read_mask(tmp_path / "new" / "mask.png"), mask)
    with pytest.raises(DataError, match=r"bad\.png"):
        save_index_png(np.array([[256]]), tmp_path / "bad.png")


def test_default_colours_are_those_of_voc_and_distinct():
    colours = default_colours(256)
    assert colours[:6] == [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128)]
    assert colours[20] == (0, 64, 128)
    assert colours[255] == (224, 224, 192)
    assert len(set(colours)) == 256


def test_overlay_mixes_class_colours_and_leaves_void_and_black():
    image = np.full((1, 3, 3), 100, np.uint8)
    result = overlay(image, np.array([[0, 1, 255]]), [(0, 0, 0), (200, 0, 100)])
    np.testing.assert_array_equal(result, [[[100, 100, 100], [150, 50, 100], [100, 100, 100]]])
    assert overlay(image[..., :1], np.zeros((1, 3), int), [(1, 2, 3)], 1.0)[0, 0].tolist() == [1, 2, 3]


def encoded(kind):
    buffer = io.BytesIO()
    Image.fromarray(picture(24, 32, 1 if kind == "PNG" else 3)).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [b"", b"not an image", encoded("PNG")[:-20], encoded("PNG")[:40], encoded("JPEG")[:200], encoded("TIFF")[:100]],
    ids=["empty", "text", "cut", "header", "jpeg", "tiff"],
)
def test_unreadable_files_are_named(tmp_path, content):
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    for read in (read_image, read_mask):
        with pytest.raises(DataError, match=r"broken\.png"):
            read(path)


def test_missing_file_and_folder_are_named(tmp_path):
    (tmp_path / "folder.png").mkdir()
    for name in ("none.png", "folder.png"):
        for read in (read_image, read_mask, file_size):
            with pytest.raises(DataError, match=name):
                read(tmp_path / name)


def test_decompression_bomb_is_refused(tmp_path, monkeypatch):
    Image.fromarray(picture(20, 30)).save(tmp_path / "bomb.png")
    np.save(tmp_path / "bomb.npy", np.zeros((20, 30), np.uint8))
    tifffile.imwrite(tmp_path / "bomb.tif", np.zeros((20, 30, 5), np.uint8), planarconfig="contig")
    for limit in (500, 200):  # Pillow warns beyond its limit and raises beyond twice the limit
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        for name, channels in (("bomb.png", 3), ("bomb.npy", 3), ("bomb.tif", 5)):
            with pytest.raises(DataError, match=rf"{name}.*pixels.*max_megapixels"):
                read_image(tmp_path / name, channels)
            with pixel_limit(1):
                assert read_image(tmp_path / name, channels).shape == (20, 30, channels)
            assert limit == Image.MAX_IMAGE_PIXELS


def attempt(read, path):
    """The array, or the words of the DataError; anything else that is raised fails the test."""
    try:
        return read(path), None
    except DataError as error:
        return None, str(error)


@settings(max_examples=150, deadline=None)
@given(place=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_flipped_bit_is_reported_or_changes_no_label(tmp_path_factory, place, bit):
    data = bytearray(encoded("PNG"))
    data[place % len(data)] ^= 1 << bit
    path = tmp_path_factory.mktemp("flip") / "flipped.png"
    path.write_bytes(bytes(data))
    result, complaint = attempt(read_mask, path)
    if complaint is None:
        np.testing.assert_array_equal(result, picture(24, 32, 1))
    else:
        assert "flipped.png" in complaint


@settings(max_examples=100, deadline=None)
@given(kind=st.sampled_from(["JPEG", "TIFF", "BMP", "WEBP"]), cut=st.floats(0, 1), noise=st.binary(max_size=40))
def test_damaged_images_are_read_or_reported_by_name(tmp_path_factory, kind, cut, noise):
    data = encoded(kind)
    place = int(cut * len(data))
    path = tmp_path_factory.mktemp("damage") / "damaged.img"
    path.write_bytes(data[:place] + noise + data[place + 2 * len(noise) :])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result, complaint = attempt(read_image, path)
    if complaint is None:
        assert result.dtype == np.uint8
        assert result.shape[2] == 3
    else:
        assert "damaged.img" in complaint


@pytest.mark.parametrize("behind", [False, True])
def test_the_header_of_a_png_says_how_it_is_turned_and_is_read_without_decoding(tmp_path, behind, monkeypatch):
    path = tmp_path / "a.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(path, exif=exif)
    data = path.read_bytes()
    place = data.index(b"eXIf") - 4
    length = 12 + int.from_bytes(data[place : place + 4], "big")
    chunk, rest = data[place : place + length], data[:place] + data[place + length :]
    path.write_bytes(rest[:-12] + chunk + rest[-12:] if behind else data)
    assert read_image(path).shape[:2] == (30, 20)
    if not behind:
        monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", None)
    assert file_size(path) == (30, 20)


@pytest.mark.parametrize("value", [0, 9, 32774])
def test_an_orientation_that_does_not_exist_is_none(tmp_path, value):
    exif = Image.Exif()
    exif[0x0112] = value
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    assert file_size(tmp_path / "a.jpg") == read_image(tmp_path / "a.jpg").shape[:2] == (20, 30)


def test_run_lengths_of_a_bmp_are_no_mask(tmp_path):
    """What they do not cover would be filled up with zeros."""
    path = tmp_path / "a.bmp"
    Image.fromarray(np.ones((12, 8), np.uint8)).save(path)
    data = bytearray(path.read_bytes())
    assert (read_mask(path) == 1).all()
    data[30] = 1
    start = int.from_bytes(data[10:14], "little")
    path.write_bytes(data[:start] + bytes([4, 1, 0, 0]) * 12 + bytes([0, 1]))  # half of each row
    assert read_image(path).min() == 0
    with pytest.raises(DataError, match=r"a\.bmp: is a run-length encoded BMP.*PNG"):
        read_mask(path)


@pytest.mark.parametrize("damage", ["no strip", "strip at 0", "too few strips", "no height", "no tile width"])
def test_a_tiff_that_lacks_pixels_is_refused(tmp_path, damage):
    """The decoder would fill up with zeros, which are labels."""
    path = tmp_path / "a.tif"
    tile = (16, 16) if "tile" in damage else None
    tifffile.imwrite(path, np.ones((12, 10), np.uint8), compression="zlib", metadata=None, tile=tile)
    assert (read_mask(path) == 1).all()
    data = bytearray(path.read_bytes())
    start = int.from_bytes(data[4:8], "little")
    for place in range(start + 2, start + 2 + 12 * int.from_bytes(data[start : start + 2], "little"), 12):
        tag = int.from_bytes(data[place : place + 2], "little")
        if (tag, damage) in ((279, "no strip"), (273, "strip at 0")):
            data[place + 8 : place + 12] = bytes(4)
        if (tag, damage) == (257, "too few strips"):
            data[place + 8 : place + 12] = (24).to_bytes(4, "little")
        if (tag, damage) in ((257, "no height"), (322, "no tile width")):
            data[place : place + 2] = (65000).to_bytes(2, "little")
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"a\.tif: "):
        read_mask(path)
