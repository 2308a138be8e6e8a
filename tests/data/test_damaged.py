"""Damaged files, 2,400 of them: each is read, or reported by its name; what is cut short is never a label."""

from __future__ import annotations

import io
import warnings

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from fuzzyseg.data import DataError, Item
from fuzzyseg.data.formats import read_header, read_image
from fuzzyseg.data.items import Encoding
from fuzzyseg.data.labels import training_labels

SIZE = (24, 32)
INDEX = np.random.default_rng(0).integers(1, 7, SIZE).astype(np.uint8)
COLOURS = np.random.default_rng(1).integers(1, 255, (7, 3)).astype(np.uint8)
CODED = Encoding(colours=tuple((*colour, index) for index, colour in enumerate(COLOURS.tolist())), text="coded")
DAMAGES = ("cut", "zeros", "flip", "noise", "text", "huge")
CASES = 40


def pillow(array, kind, mode=None, **options):
    buffer = io.BytesIO()
    image = Image.fromarray(array, mode)
    if mode == "P":
        image.putpalette(np.random.default_rng(2).integers(0, 256, 768).astype(np.uint8).tolist())
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(array, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def numpy_file(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


MASKS = {
    "grey.png": (pillow(INDEX, "PNG"), None),
    "palette.png": (pillow(INDEX, "PNG", "P"), None),
    "coded.png": (pillow(np.dstack([COLOURS[INDEX], np.full(SIZE, 255, np.uint8)]), "PNG"), CODED),
    "deep.png": (pillow(INDEX.astype(np.uint16), "PNG"), None),
    "plain.tif": (tiff(INDEX), None),
    "tiles.tif": (tiff(INDEX.astype(np.uint16), tile=(16, 16), compression="lzw"), None),
    "index.npy": (numpy_file(INDEX), None),
}
IMAGES = {
    "photo.jpg": (pillow(COLOURS[INDEX], "JPEG"), 3),
    "photo.bmp": (pillow(COLOURS[INDEX], "BMP"), 3),
    "deep.png": (imagecodecs.png_encode(COLOURS[INDEX].astype(np.uint16) * 257), 3),
}
CHECKED = ("grey.png", "palette.png", "coded.png", "deep.png")
"""Files with checksums, in which no damage can pass for another label."""


def damage(data, how, rng):
    """The bytes after one kind of damage."""
    place = int(rng.integers(1, len(data)))
    if how == "cut":
        return data[:place]
    if how == "zeros":
        length = int(rng.integers(1, len(data) - place + 1))
        return bytes(len(data)) if rng.random() < 0.1 else data[:place] + bytes(length) + data[place + length :]
    if how == "text":
        return bytes(rng.integers(32, 127, int(rng.integers(1, 200))).astype(np.uint8))
    changed = bytearray(data)
    if how == "flip":
        changed[place] ^= 1 << int(rng.integers(8))
    elif how == "noise":
        for at in rng.integers(0, len(data), 12):
            changed[at] = int(rng.integers(256))
    else:  # somewhere in the first bytes, where sizes stand, a number becomes huge
        at = int(rng.integers(4, min(len(data) - 4, 200)))
        changed[at : at + 4] = b"\xff\xff\xff\x7f" if rng.random() < 0.5 else b"\x7f\xff\xff\xff"
    return bytes(changed)


def complaint(read, *arguments, **options):
    """What was read, and the words of the DataError; anything else that is raised fails the test."""
    try:
        return read(*arguments, **options), None
    except DataError as error:
        return None, str(error)


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_mask_is_right_or_reported(tmp_path, name, how):
    data, encoding = MASKS[name]
    rng = np.random.default_rng([DAMAGES.index(how), len(name)])
    path = tmp_path / name
    for _ in range(CASES):
        path.write_bytes(damage(data, how, rng))
        item = Item(path, path, "x", encoding)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found, words = complaint(training_labels, item, classes=7, ignore_index=255)
            _, about = complaint(read_header, path)
        assert words is None or name in words
        assert about is None or name in about
        if found is not None and (name in CHECKED or how in ("cut", "text")):
            np.testing.assert_array_equal(found, INDEX)


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_image_is_read_or_reported(tmp_path, name, how):
    data, channels = IMAGES[name]
    rng = np.random.default_rng([DAMAGES.index(how), len(name)])
    path = tmp_path / name
    for _ in range(CASES):
        path.write_bytes(damage(data, how, rng))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found, words = complaint(read_image, path, channels)
        assert (words is None and found.shape[2] == channels) or name in words


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("suffix", [".png", ".tif", ".npy", ".jpg", ".mat"])
def test_a_wrong_suffix_is_right_or_reported(tmp_path, kind, suffix):
    data, encoding = MASKS[kind]
    path = tmp_path / f"wrong{suffix}"
    path.write_bytes(data)
    found, words = complaint(training_labels, Item(path, path, "x", encoding), classes=7, ignore_index=255)
    assert (words is None and (found == INDEX).all()) or "wrong" in words
