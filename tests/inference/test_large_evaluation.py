"""Images that are too large to be decoded whole are scored row block by row block: the numbers of the whole."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tifffile

from fuzzyseg.data import DataError, Item
from fuzzyseg.data.io.pillow import pixel_limit
from fuzzyseg.data.sample import Encoding
from fuzzyseg.inference import evaluate
from fuzzyseg.inference import evaluate as scored
from fuzzyseg.inference import predictor as room
from support.small_images import item, noise, predictor

LARGE, SMALL = (1300, 900), (40, 50)  # 1.17 and less than a million pixels: the limit is given in millions
CODED = Encoding(colours=((128, 0, 0, 0), (0, 128, 0, 1), (0, 0, 128, 2)), text="coloured")
SHAPES = {"tiles": {"tile": (256, 128)}, "strips": {"rowsperstrip": 100}, "planes": {"tile": (128, 128)}}


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    monkeypatch.setattr(room, "MAX_PIXELS", 100_000)
    monkeypatch.setattr(room, "TILE", (300, 400))


def truth(height=LARGE[0], width=LARGE[1]):
    mask = noise(height // 10 + 1, width // 10 + 1, 5, 1)[..., 0] % 4
    mask[mask == 3] = 255
    return mask.repeat(10, 0).repeat(10, 1)[:height, :width].copy()


def large(folder, name="large", kind="tiles", mask=None):
    """An image of a few values, and its mask as TIFF."""
    small = noise(LARGE[0] // 20, LARGE[1] // 20)
    image = small.repeat(20, 0).repeat(20, 1)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.tif", folder / f"{name}_mask.tif"]
    if kind == "numpy":
        paths = [path.with_suffix(".npy") for path in paths]
        np.save(paths[0], image)
        np.save(paths[1], truth() if mask is None else mask)
        return Item(paths[0], paths[1], name)
    stored = {"planarconfig": "separate"} if kind == "planes" else {}
    pixels = image.transpose(2, 0, 1) if kind == "planes" else image
    tifffile.imwrite(paths[0], pixels, photometric="rgb", compression="zlib", **stored, **SHAPES[kind])
    mask = truth() if mask is None else mask
    colours = "minisblack" if mask.ndim == 2 else "rgb"
    tifffile.imwrite(paths[1], mask, photometric=colours, compression="zlib", tile=(64, 64))
    return Item(paths[0], paths[1], name)


def both(items, **options):
    """Whole, and under a limit that the large ones are above."""
    model = predictor()
    whole = scored(model, items, **options)
    with pixel_limit(1):
        return whole, scored(model, items, **options)


@pytest.mark.parametrize("kind", [*SHAPES, "numpy"])
def test_the_score_is_that_of_the_whole(tmp_path, kind):
    whole, parts = both([large(tmp_path, kind=kind)])
    assert parts == whole
    assert parts["pixels"] == int((truth() != 255).sum())
    assert len({round(value, 6) for value in parts["per_class"].values()}) == 3


def test_in_windows_too_and_among_other_images_in_batches(tmp_path):
    others = [item(tmp_path, str(i), noise(*SMALL, i), noise(*SMALL, 9 + i, 1)[..., 0] % 3) for i in range(3)]
    items, counts = [*others[:2], large(tmp_path), others[2]], []
    options = {"batch": 2, "mode": "sliding", "window": (200, 333)}
    whole, parts = both(items, **options, progress=lambda done, total: counts.append((done, total)))
    assert parts == whole
    assert counts == 2 * [(2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize(
    ("encoding", "stored"),
    [
        (Encoding(table=((7, 0), (300, 1), (40, 2)), text="values"), [7, 300, 40]),
        (Encoding(reduce_zero=True, text="offset"), [1, 2, 3]),
        (CODED, [[128, 0, 0], [0, 128, 0], [0, 0, 128]]),
        (replace(CODED, snap=True), [[120, 3, 0], [0, 128, 9], [0, 2, 128]]),
    ],
    ids=lambda value: value.text if isinstance(value, Encoding) else "",
)
def test_masks_of_any_encoding_by_windows(tmp_path, encoding, stored):
    table = np.array(stored)
    labels = truth()
    labels[labels == 255] = 0
    mask = table[labels].astype(np.uint16 if table.max() > 255 else np.uint8)
    whole, parts = both([replace(large(tmp_path, mask=mask), encoding=encoding)])
    assert parts == whole
    assert parts["pixels"] == labels.size


def test_what_cannot_go_by_windows_stays_an_error(tmp_path):
    there = large(tmp_path)
    with pixel_limit(1):
        for options in ({"scales": [1, 2]}, {"flip": True}):
            with pytest.raises(DataError, match=r"large\.tif: has 1300 x 900 pixels.*data\.max_megapixels"):
                evaluate(predictor(), [there], **options)
        with pytest.raises(DataError, match=r"large\.tif: has 1300 x 900 pixels"):
            evaluate(predictor(image_size=(64, 64)), [there])
        png = item(tmp_path, "png", noise(*SMALL), truth())
        with pytest.raises(DataError, match=r"png\.png: has 1300 x 900 pixels.*data\.max_megapixels"):
            evaluate(predictor(), [Item(there.image, png.mask, "png")])


def test_errors_of_masks_name_the_matter(tmp_path):
    strange = truth()
    strange[900, 7] = 9
    with pixel_limit(1):
        with pytest.raises(DataError, match=r"large_mask\.tif: found the values 9.*counted within rows \d+ to \d+"):
            evaluate(predictor(), [large(tmp_path, mask=strange)])
        with pytest.raises(DataError, match=r"large_mask\.tif: is 1290x900 .*but its image .* is 1300x900"):
            evaluate(predictor(), [large(tmp_path, mask=truth(1290))])
        there = large(tmp_path)
        with pytest.raises(DataError, match=r"large\.tif: has no mask"):
            evaluate(predictor(), [Item(there.image, None, "large")])
