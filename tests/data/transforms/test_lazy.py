"""Images above the limit of pixels: training reads the part that a crop shows, with the pixels of the whole."""

import json
import pickle
import random
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

import fuzzyseg
from fuzzyseg.config import validate
from fuzzyseg.data import DataError, Item, Reader
from fuzzyseg.data.io.image import Levels
from fuzzyseg.data.loading.reader import LazyReader, check_sizes
from fuzzyseg.data.sample import Encoding
from fuzzyseg.data.transforms import lazy
from fuzzyseg.data.transforms.geometry import Geometry, Window, make_sample
from fuzzyseg.data.transforms.lazy import Large
from fuzzyseg.data.views import CropPair, Stream, Weak, WeakStrong
from support.tiny_data import loader_of, material_of, settings, write_folder
from support.tiny_network import TinyNetwork

SIZE = (88, 130)
LIMIT = SIZE[0] * SIZE[1] - 1
RESAMPLING = Image.Resampling
LAYOUTS = {
    "tiles": {"tile": (16, 32)},
    "planar tiles": {"tile": (32, 16), "planarconfig": "separate"},
    "strips": {"rowsperstrip": 7, "compression": "zlib"},
    "planar strips": {"rowsperstrip": 16, "planarconfig": "separate"},
    "numpy": None,
}


def write(path, array, layout):
    options = LAYOUTS[layout]
    if options is None:
        path = path.with_suffix(".npy")
        np.save(path, array)
        return path
    if array.ndim == 2 or array.shape[2] == 1:
        array = array.reshape(array.shape[:2])
        options = {key: value for key, value in options.items() if key != "planarconfig"}
    elif options.get("planarconfig") == "separate":
        array = np.moveaxis(array, -1, 0)
    photometric = "rgb" if array.ndim == 3 and 3 in (array.shape[0], array.shape[-1]) else "minisblack"
    planar = {"planarconfig": "contig"} if array.ndim == 3 else {}
    tifffile.imwrite(path, np.ascontiguousarray(array), **{"photometric": photometric, **planar, **options})
    return path


def item_of(tmp_path, layout="tiles", bands=3, dtype=np.uint8, mask="tiles"):
    rng = np.random.default_rng(bands)
    image = rng.integers(0, np.iinfo(dtype).max, (*SIZE, bands), endpoint=True).astype(dtype)
    labels = rng.choice([0, 1, 2, 7], SIZE).astype(np.uint8)
    return Item(
        write(tmp_path / "i.tif", image, layout),
        None if mask is None else write(tmp_path / "m.tif", labels, mask),
        "i",
    )


def both(reader, item, monkeypatch):
    """The whole and what stays in the file."""
    whole = reader.read(item, item.mask is not None)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", LIMIT)
    with pytest.raises(DataError, match=r"data\.max_megapixels"):
        reader.read(item, False)
    return whole, LazyReader(reader).read(item, item.mask is not None)


def same(one, other):
    return one.dtype == other.dtype and one.stride() == other.stride() and torch.equal(one, other)


def close(one, other, how):
    """Resampled pixels that differ by rounding: of a part, Pillow computes other weights, and rounds other ties."""
    difference = (one.double() - other.double()).abs()
    assert one.stride() == other.stride()
    if how == RESAMPLING.NEAREST:
        return float((difference > 0).double().mean()) < 0.3
    return float(difference.max()) <= (2 if one.dtype == torch.uint8 else 1e-3)


def windows(count, size):
    """Random crops at scales from 0.4 to 2.5, of which some begin before the image or end behind it."""
    draw = random.Random(0)
    for _ in range(count):
        scale = draw.choice([0.4, 0.5, 0.77, 1.0, 1.3, 2.0, 2.5])
        scaled = tuple(max(1, round(side * scale)) for side in size)
        crop = (draw.randint(1, 30), draw.randint(1, 40))
        top, left = (draw.randint(1 - c, s - 1) for c, s in zip(crop, scaled, strict=True))
        yield Window(scaled, top, left, crop, draw.random() < 0.5, draw.random() < 0.5)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("bands", "dtype"), [(1, np.uint8), (3, np.uint8), (5, np.uint8), (3, np.uint16)])
def test_a_crop_has_the_pixels_of_the_whole(tmp_path, monkeypatch, layout, bands, dtype):
    levels = Levels() if dtype == np.uint16 else None
    item = item_of(tmp_path, layout, bands, dtype, mask=layout if bands == 1 else "tiles")
    reader = Reader(bands, 3, 7, levels=levels)
    (image, mask), (part, labels) = both(reader, item, monkeypatch)
    assert isinstance(part, Large) and isinstance(labels, Large)
    assert (part.shape, labels.shape) == (image.shape, mask.shape)
    for window in windows(60, SIZE):
        for one, other, how in ((part, image, RESAMPLING.BILINEAR), (labels, mask, RESAMPLING.NEAREST)):
            seen, expected = window.resample(one, how), window.resample(other, how)
            exact = window.scaled == SIZE
            assert same(seen, expected) if exact else close(seen, expected, how), window


@pytest.mark.parametrize("size", [(50, 20_000), (20_000, 50)])
@pytest.mark.parametrize("how", [RESAMPLING.BILINEAR, RESAMPLING.NEAREST])
def test_far_from_the_corner_too(size, how):
    """Pixels that hold their own place: a crop shows the place that it shows of the whole, within one pixel."""
    stored = np.add(*np.mgrid[: size[0], : size[1]]).astype(np.float32)
    large = Large(size, lambda box: stored[box[0] : box[2], box[1] : box[3]])
    for window in windows(40, size):
        difference = window.resample(large, how) - window.resample(torch.from_numpy(stored), how)
        assert difference.abs().max() <= (0.01 if how == RESAMPLING.BILINEAR else 2), window


def test_no_more_is_read_than_the_crop_shows():
    read = []

    def look(box):
        read.append(box)
        return np.zeros((box[2] - box[0], box[3] - box[1]), np.uint8)

    window = Window((5000, 5000), 2000, 3000, (100, 50), False, False)
    window.resample(Large((10_000, 10_000), look), RESAMPLING.BILINEAR)
    assert read == [(3996, 5996, 4204, 6104)]


@pytest.mark.parametrize("view", [Weak(), WeakStrong(2), CropPair(overlap=(0.2, 0.9), stride=4)], ids=str)
@pytest.mark.parametrize("later", [False, True])
def test_samples_are_those_of_the_whole(tmp_path, monkeypatch, view, later):
    whole, large = both(Reader(3, 3, 7), item_of(tmp_path), monkeypatch)
    geometry = Geometry((24, 32), (1.0, 1.0), vertical_flip=0.5)
    options = {"geometry": geometry, "jitter": 0.5, "mean": [0.5] * 3, "std": [0.2] * 3, "colours_later": later}
    for seed in range(30):
        one = make_sample(view, *whole, seed=seed, **options)
        other = make_sample(view, *large, seed=seed, **options)
        assert one.keys() == other.keys()
        assert all(same(one[key], other[key]) for key in one), seed


@pytest.mark.parametrize("strip", [1, 2000, 10**6])
def test_crops_over_a_class_are_those_of_the_whole(tmp_path, monkeypatch, strip):
    monkeypatch.setattr(lazy, "_STRIP", strip)
    item = item_of(tmp_path)
    labels = np.zeros(SIZE, np.uint8)
    labels[70:73, 5:9], labels[3, 100] = 1, 1  # and nowhere 2
    write(tmp_path / "m.tif", labels, "tiles")
    whole, large = both(Reader(3, 3, 7), item, monkeypatch)
    options = {"geometry": Geometry((24, 32), (1.0, 1.0)), "mean": [0.5] * 3, "std": [0.2] * 3}
    for seed in range(12):
        for focus in (1, 2):
            one = make_sample(Weak(), *whole, seed=seed, focus=focus, **options)
            other = make_sample(Weak(), *large, seed=seed, focus=focus, **options)
            assert all(same(one[key], other[key]) for key in one), (seed, focus)


@pytest.mark.parametrize(
    ("encoding", "stored"),
    [
        (Encoding(((10, 0), (300, 1), (500, 2)), ignore=(7,), text="values"), np.array([10, 300, 500], np.uint16)),
        (
            Encoding(((0, 0), (1, 1)), colours=((9, 8, 7, 0), (200, 0, 0, 1)), text="colours"),
            np.array([[9, 8, 7], [200, 0, 0]], np.uint8),
        ),
    ],
    ids=["16 bits", "colours"],
)
@pytest.mark.parametrize("layout", ["tiles", "strips", "numpy"])
def test_masks_of_other_encodings(tmp_path, monkeypatch, encoding, stored, layout):
    image = item_of(tmp_path, mask=None).image
    values = stored[np.random.default_rng(1).integers(0, len(stored), SIZE)]
    item = Item(image, write(tmp_path / "m.tif", values, layout), "i", encoding)
    (_, mask), (_, labels) = both(Reader(3, 3, 255), item, monkeypatch)
    assert torch.equal(labels.part((20, 40, 60, 100)), mask[20:60, 40:100])


def test_what_a_mask_must_not_hold_is_told_with_the_part(tmp_path, monkeypatch):
    item = item_of(tmp_path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", LIMIT)
    _, labels = LazyReader(Reader(3, 2, 7)).read(item, True)
    with pytest.raises(DataError, match=r"m\.tif: found the values 2 in .*rows 16 to 39 and columns 32 to 49"):
        labels.part((16, 32, 40, 50))


def test_what_can_be_neither_read_whole_nor_by_windows_is_refused_as_before(tmp_path, monkeypatch):
    item = item_of(tmp_path)
    png, turned = tmp_path / "i.png", tmp_path / "turned.tif"
    Image.fromarray(np.zeros(SIZE, np.uint8)).save(png)
    array = np.zeros((*SIZE, 3), np.uint8)
    tifffile.imwrite(turned, array, photometric="rgb", tile=(16, 16), extratags=[(274, "H", 1, 6, True)])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", LIMIT)
    check_sizes([item])
    reader = LazyReader(Reader(3, 3, 7))
    for path in (png, turned):
        with pytest.raises(DataError, match=rf"{path.name}: has .* pixels.*raise data\.max_megapixels"):
            reader.read(Item(path, None, "i"), False)
    with pytest.raises(DataError, match=r"i\.png: has 88 x 130 pixels.*raise data\.max_megapixels"):
        reader.read(Item(item.image, png, "i"), True)
    with pytest.raises(DataError, match=r"i\.tif: has 88 x 130 pixels"):
        LazyReader(Reader(3, 3, 7, image_size=(20, 20))).read(item, False)
    with pytest.raises(DataError, match="has no mask"):
        reader.read(Item(item.image, None, "i"), True)
    with pytest.raises(DataError, match=r"has crops of 88 x 130 pixels of 3 bands"):
        reader.read(item, False)[0].whole()
    small = write(tmp_path / "small.tif", np.zeros((16, 16), np.uint8), "tiles")
    with pytest.raises(DataError, match=r"small\.tif: is 16x16 .*expected the same size"):
        reader.read(Item(item.image, small, "i"), True)


def test_other_files_are_read_and_cached_as_they_are(tmp_path):
    item = item_of(tmp_path)
    reader = LazyReader(Reader(3, 3, 7, cache_bytes=10**6))
    for _ in range(2):
        for one, other in zip(reader.read(item, True), Reader(3, 3, 7).read(item, True), strict=True):
            assert isinstance(one, torch.Tensor) and same(one, other)
    assert len(reader.reader._cache.entries) == 2
    assert pickle.loads(pickle.dumps(reader)) == reader


def test_very_large_images_are_not_cached(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", LIMIT)
    reader = LazyReader(Reader(3, 3, 7, cache_bytes=10**6))
    image, mask = reader.read(item_of(tmp_path), True)
    assert isinstance(image, Large) and isinstance(mask, Large)
    assert not reader.reader._cache.entries


def training(tmp_path, workers=0):
    root = write_folder(tmp_path / "data")
    big = np.random.default_rng(0).integers(0, 256, (200, 300, 3)).astype(np.uint8)
    tifffile.imwrite(root / "images" / "train" / "big.tif", big, photometric="rgb", tile=(32, 32))
    return settings(
        root,
        tmp_path / "run",
        data={"cache": "ram", "labelled": "11"},
        augment={"scale": [1.0, 1.0]},
        train={"steps": 3, "log_every": 1, "eval_every": 0, "batch": 4, "workers": workers},
    )


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_hold_the_large_image_as_if_it_were_decoded_whole(tmp_path, monkeypatch, workers):
    config = validate(training(tmp_path, workers))
    material = material_of(config)

    method = SimpleNamespace(streams={"unlabelled": Stream(Weak(), "unlabelled")}, facts=SimpleNamespace(channels=3))

    def batches():
        loader = loader_of(config, material, method)
        return [(batch.name, batch.image) for (step,) in loader.batches(0, 3) for batch in step.values()]

    whole = batches()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20_000)
    large = batches()
    assert any("big" in name for names, _ in whole for name in names)
    for (names, images), (same_names, same_images) in zip(whole, large, strict=True):
        assert names == same_names and torch.equal(images, same_images)


def test_trains_with_an_image_above_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20_000)
    fuzzyseg.train(training(tmp_path), network=partial(TinyNetwork, classes=3), quiet=True)
    rows = [json.loads(row) for row in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert any("losses" in row for row in rows)
