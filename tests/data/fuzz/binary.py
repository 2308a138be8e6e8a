"""Image and mask files of every kind, small and whole, and what is tried with damaged ones."""

from __future__ import annotations

import io
import resource

import decoders
import imagecodecs
import numpy as np
import tifffile
from PIL import Image
from scipy.io import savemat

from fuzzyseg.data import DataError, Item
from fuzzyseg.data.check.files import inspect_file
from fuzzyseg.data.check.labels import mask_statistics
from fuzzyseg.data.io.header import file_size
from fuzzyseg.data.io.image import read_image
from fuzzyseg.data.io.mask import read_mask
from fuzzyseg.data.labels.decode import training_labels
from fuzzyseg.data.sample import Encoding

CLASSES, VOID, H, W = 4, 255, 12, 10
COLOURS = [(128, 0, 0), (0, 128, 0), (0, 0, 128), (200, 100, 50)]
CODED = Encoding(colours=tuple((*colour, index) for index, colour in enumerate(COLOURS)), text="four colours")
RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, CLASSES, (H // 2, W // 2)).repeat(2, 0).repeat(2, 1).astype(np.uint8)
LABELS[0, :4] = VOID
PHOTO = RNG.integers(0, 256, (H, W, 3)).astype(np.uint8)
BANDS = np.dstack([PHOTO, PHOTO])[..., :5].astype(np.uint16)


def saved(array, kind, **options):
    buffer = io.BytesIO()
    (array if isinstance(array, Image.Image) else Image.fromarray(array)).save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(array, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def palette():
    image = Image.fromarray(LABELS)
    image.putpalette([value for index in range(256) for value in (index * 7 % 256, index * 13 % 256, index)])
    return image


def coloured(bands):
    table = np.zeros((256, bands), np.uint8)
    table[:CLASSES, :3] = COLOURS
    if bands == 4:
        table[:CLASSES, 3] = 255
    else:
        table[VOID] = 0, 128, 0  # files without opacity have no void
    return table[LABELS]


def sbd():
    buffer = io.BytesIO()
    value = np.zeros((1, 1), dtype=[("Segmentation", object)])
    value[0, 0] = (LABELS,)
    savemat(buffer, {"GTcls": value}, do_compression=True)
    return buffer.getvalue()


def by_colour(array):
    """Labels of colours, None where a colour means nothing."""
    labels = np.full(array.shape[:2], -1)
    for index, colour in enumerate(COLOURS):
        labels[(array[..., :3] == colour).all(-1)] = index
    if array.shape[2] == 4:
        labels[array[..., 3] < 255] = -1
        labels[array[..., 3] == 0] = VOID
    return None if (labels < 0).any() else labels


def by_value(array):
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    known = (array == VOID) | ((array >= 0) & (array < CLASSES))
    return array if known.all() else None


MASKS = {
    "index.png": (saved(LABELS, "PNG"), None, decoders.png, by_value),
    "palette.png": (saved(palette(), "PNG"), None, decoders.png, by_value),
    "deep.png": (saved(LABELS.astype(np.uint16), "PNG"), None, decoders.png, by_value),
    "rgb.png": (saved(coloured(3), "PNG"), CODED, decoders.png, by_colour),
    "rgba.png": (saved(coloured(4), "PNG"), CODED, decoders.png, by_colour),
    "plain.tif": (tiff(LABELS), None, decoders.tiff, by_value),
    "packed.tif": (tiff(LABELS, compression="zlib"), None, decoders.tiff, by_value),
    "deep.tif": (tiff(LABELS.astype(np.uint16), compression="lzw"), None, decoders.tiff, by_value),
    "tiles.tif": (tiff(LABELS.astype(np.uint16), tile=(16, 16)), None, decoders.tiff, by_value),
    "index.npy": (npy(LABELS), None, decoders.npy, by_value),
    "wide.npy": (npy(LABELS.astype(np.int32)), None, decoders.npy, by_value),
    "index.bmp": (saved(LABELS, "BMP"), None, decoders.bmp, by_value),
    "rgb.webp": (saved(coloured(3), "WEBP", lossless=True), CODED, decoders.webp, by_colour),
    "sbd.mat": (sbd(), None, None, by_value),
}
"""File name -> content, encoding, a decoder of others, what its pixels mean (None: nothing)."""


def turned(array):
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(array, "JPEG", exif=exif, quality=95)


IMAGES = {
    "photo.jpg": (saved(PHOTO, "JPEG", quality=95), 3, None),
    "turned.jpg": (turned(PHOTO), 3, None),
    "print.jpg": (saved(Image.fromarray(PHOTO).convert("CMYK"), "JPEG"), 3, None),
    "photo.png": (saved(PHOTO, "PNG"), 3, decoders.png),
    "alpha.png": (saved(np.dstack([PHOTO, PHOTO[..., 0]]), "PNG"), 4, decoders.png),
    "grey.png": (saved(PHOTO[..., 0], "PNG"), 1, decoders.png),
    "deep.png": (bytes(imagecodecs.png_encode(PHOTO.astype(np.uint16) * 257)), 3, None),
    "photo.bmp": (saved(PHOTO, "BMP"), 3, decoders.bmp),
    "photo.webp": (saved(PHOTO, "WEBP", lossless=True), 3, decoders.webp),
    "bands.tif": (tiff(BANDS, photometric="minisblack", planarconfig="contig"), 5, None),
    "photo.tif": (tiff(PHOTO, photometric="rgb", compression="zlib"), 3, decoders.tiff),
    "bands.npy": (npy(np.dstack([PHOTO, PHOTO])), 6, decoders.npy),
    "deep.npy": (npy(PHOTO.astype(np.uint16) * 257), 3, None),
}
"""File name -> content, bands asked for, a decoder of others."""


class Wrong(Exception):
    pass


def named(error, *names):
    if not any(name in str(error) for name in names):
        raise Wrong(f"an error that names no file: {error}")


def masks(folder, name, data, source=None):
    encoding, meaning = MASKS[name][1::2]
    decoder = MASKS[source or name][2]
    path = folder / name
    path.write_bytes(data)
    item = Item(path, path, "x", encoding)
    seen, counted = inspect_file(path, "mask"), mask_statistics(item, CLASSES, VOID)
    try:
        labels = training_labels(item, classes=CLASSES, ignore_index=VOID)
    except DataError as error:
        named(error, name)
        if counted.problem is None and not counted.unmapped_pixels:
            raise Wrong("the check says nothing of what training refuses") from None
        named(counted.problem or name, name)
        return "reported"
    if seen.problem is not None or counted.problem is not None or counted.unmapped_pixels:
        raise Wrong(f"the check complains of what training takes: {seen.problem} {counted}")
    if seen.size != labels.shape:
        raise Wrong(f"sizes {seen.size} and {labels.shape}")
    if file_size(path) != labels.shape:
        raise Wrong(f"the header says {file_size(path)}, the pixels are {labels.shape}")
    original = np.where(LABELS == VOID, 1, LABELS) if encoding is CODED and "rgba" not in name else LABELS
    if np.array_equal(labels, original):
        return "as it was"
    expected = meaning(decoder(data)) if decoder is not None else None
    if expected is None or not np.array_equal(labels, expected):
        raise Wrong(f"labels that are not in the file: {labels.tolist()}")
    return "as it is"


def images(folder, name, data, source=None):
    channels, decoder = IMAGES[name][1], IMAGES[source or name][2]
    path = folder / name
    path.write_bytes(data)
    seen = inspect_file(path, "image")
    named(seen.problem or name, name)
    try:
        pixels = read_image(path, channels)
    except DataError as error:
        named(error, name)
        return "reported"
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != channels or 0 in pixels.shape:
        raise Wrong(f"{pixels.dtype} {pixels.shape}")
    if seen.problem is not None or seen.size != pixels.shape[:2] or file_size(path) != pixels.shape[:2]:
        raise Wrong(f"the check says {seen}, the header {file_size(path)}; read {pixels.shape}")
    path.write_bytes(IMAGES[name][0])
    if np.array_equal(pixels, read_image(path, channels)):
        return "as it was"
    if decoder is None:
        return "as it is"
    try:
        expected = decoder(data)
    except Exception:  # one decoder refuses what another takes, as it may with pictures
        return "as it is"
    expected = expected[..., None] if expected.ndim == 2 else expected
    if expected.shape[2] in (2, 4) and expected.shape[2] != channels:
        expected = expected[..., :-1]
    if expected.shape[2] == 1 and channels == 3:
        expected = expected.repeat(3, 2)
    if expected.shape == pixels.shape and not np.array_equal(pixels, expected):
        raise Wrong("pixels that are not in the file")
    return "as it is"


def huge_sizes(folder, name, data):
    """Headers that promise more than can be decoded are refused, and no memory is taken for them."""
    path = folder / name
    path.write_bytes(data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    reads = [lambda: read_image(path, 3), lambda: read_mask(path, colours=True, lossy=True)]
    for read in reads if path.suffix != ".mat" else reads[1:]:
        try:
            read()
        except DataError as error:
            named(error, name)
        else:
            raise Wrong("was read")
    if inspect_file(path, "image").problem is None or inspect_file(path, "mask").problem is None:
        raise Wrong("the check says nothing")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    if grown > 120_000:  # KiB; the smallest of them would take 144 MB
        raise Wrong(f"took {grown} KiB")
    return "reported"
