"""Data that a GeoTIFF declares as missing: not valid, void, not measured, whatever number stands for it."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from fuzzyseg.data import DataError, Item, Reader, read_dataset
from fuzzyseg.data.io.image import Levels, open_windows, read_image, read_known
from fuzzyseg.data.io.mask import read_mask
from fuzzyseg.data.labels.decode import training_labels
from fuzzyseg.data.loading.normalisation import kinds_of, measure
from fuzzyseg.data.sample import Encoding
from fuzzyseg.data.transforms.geometry import Geometry, make_sample
from fuzzyseg.data.views import CropPair, Weak
from fuzzyseg.inference import evaluate, predict_files
from support.small_images import predictor

HOLE = np.s_[8:24, 16:40]
KINDS = {
    "int16": (np.int16, -9999),
    "float": (np.float32, -3.4028234663852886e38),
    "nan": (np.float32, np.nan),
    "uint16": (np.uint16, 65535),
    "uint8": (np.uint8, 0),
}


def tag(value):
    return [(42113, "s", 0, str(value), True)]  # as GDAL writes it


def write(path, array, nodata, **options):
    photometric = "rgb" if array.ndim == 3 and array.shape[2] == 3 else "minisblack"
    tifffile.imwrite(path, array, photometric=photometric, extratags=tag(nodata), tile=(16, 16), **options)
    return path


def image_of(kind, bands=3):
    dtype, nodata = KINDS[kind]
    array = np.random.default_rng(0).integers(1, 200, (32, 48, bands)).astype(dtype)
    array[HOLE] = nodata
    return array, nodata


def hole():
    missing = np.zeros((32, 48), bool)
    missing[HOLE] = True
    return missing


@pytest.mark.parametrize("kind", KINDS)
def test_missing_pixels_are_neither_measured_nor_valid_nor_labelled(tmp_path, kind):
    array, nodata = image_of(kind)
    path = write(tmp_path / "a.tif", array, nodata)
    item = Item(path, tmp_path / "m.png", "a")
    Image.fromarray(np.ones((32, 48), np.uint8)).save(item.mask)
    known = read_known(path)
    np.testing.assert_array_equal(np.isnan(known).any(-1), hole())
    result = measure([item], kinds_of([item], 3), 3, None)
    scale = (result.levels.high[0] - result.levels.low[0]) if result.levels and result.levels.low else None
    low = result.levels.low[0] if scale else 0
    full = scale or (255 if result.levels is None else 65535)
    np.testing.assert_allclose(result.mean[0], (known[..., 0][~hole()].mean() - low) / full, rtol=1e-6)
    reader = Reader(3, 2, 255, levels=result.levels)
    image, mask = reader.read(item, True)
    np.testing.assert_array_equal(mask.numpy() == 255, hole())
    plain = Geometry((32, 48), scale=(1.0, 1.0), flip=0.0)
    sample = make_sample(Weak(), image, mask, geometry=plain, mean=result.mean, std=result.std, seed=0)
    assert sample["image"].shape[0] == 3
    np.testing.assert_array_equal(~sample["valid"].numpy(), hole())


@pytest.mark.parametrize("written", ["-3.40282e+38", "-3.4e+38", "-3.4028230607370965e+38"])
def test_a_huge_value_of_few_digits_is_missing_too(tmp_path, written):
    array, _ = image_of("float")
    np.testing.assert_array_equal(np.isnan(read_known(write(tmp_path / "a.tif", array, written))).any(-1), hole())
    array[HOLE] = -9999
    known = read_known(write(tmp_path / "b.tif", array, -9998.9))
    assert not np.isnan(known).any()


@pytest.mark.parametrize(("kind", "levels"), [("uint8", None), ("float", Levels((0.0,) * 3, (200.0,) * 3))])
def test_pixels_mixed_with_missing_ones_are_not_valid(tmp_path, kind, levels):
    """At half the size, an output pixel that sees a missing one must not be used, in either crop."""
    array, nodata = image_of(kind)
    array[~hole()] = 100
    item = Item(write(tmp_path / "a.tif", array, nodata), None, "a")
    image, _ = Reader(3, 2, 255, levels=levels).read(item, False)
    half = Geometry((16, 24), scale=(0.5, 0.5), flip=0.5)
    for seed in range(4):
        sample = make_sample(CropPair(), image, None, geometry=half, mean=[0.5] * 3, std=[1.0] * 3, seed=seed)
        for part, valid in ((sample["image"], sample["valid"]), (sample["pair_image"], sample["pair_valid"])):
            seen = part[:, valid].float()
            assert 0 < seen.shape[1] < 16 * 24
            np.testing.assert_allclose(seen.numpy(), seen.max().item(), rtol=1e-5)


def test_windows_tell_the_same(tmp_path):
    array, nodata = image_of("uint8")
    path = write(tmp_path / "a.tif", array, nodata)
    windows, whole = open_windows(path), read_image(path, with_known=True)
    assert whole.shape == (32, 48, 4)
    np.testing.assert_array_equal(windows.read((4, 10, 30, 44), with_known=True), whole[4:30, 10:44])


def test_a_dark_pixel_that_has_a_colour_is_not_missing(tmp_path):
    array, nodata = image_of("uint8")
    array[0, 0] = (0, 57, 0)
    assert read_image(write(tmp_path / "a.tif", array, nodata), with_known=True)[0, 0, 3] == 255


MASKS = {
    "int16": (np.int16, -9999),
    "uint8": (np.uint8, 0),
    "uint16": (np.uint16, 65535),
    "float": (np.float32, -3.4028234663852886e38),
    "nan": (np.float32, np.nan),
}


@pytest.mark.parametrize("kind", MASKS)
def test_missing_pixels_of_masks_are_void(tmp_path, kind):
    dtype, nodata = MASKS[kind]
    array = np.full((32, 48), 1, dtype)
    array[HOLE] = nodata
    item = Item(tmp_path / "i.png", write(tmp_path / "m.tif", array, nodata), "m")
    np.testing.assert_array_equal(training_labels(item, classes=2, ignore_index=255), np.where(hole(), 255, 1))


def test_missing_pixels_of_palette_and_colour_masks_are_void(tmp_path):
    index = np.where(hole(), 7, 1).astype(np.uint8)
    colours = np.zeros((3, 256), np.uint16)
    colours[:, 1] = 65535
    tifffile.imwrite(tmp_path / "p.tif", index, photometric="palette", colormap=colours, extratags=tag(7))
    np.testing.assert_array_equal(read_mask(tmp_path / "p.tif"), np.where(hole(), 255, 1))
    rgb = np.where(hole()[..., None], 0, [200, 10, 10]).astype(np.uint8)
    encoding = Encoding(colours=((200, 10, 10, 1), (0, 0, 0, 0)))
    for name in ("c.tif", "p.tif"):
        encoding = encoding if name == "c.tif" else Encoding(colours=((255, 255, 255, 1), (0, 0, 0, 0)))
        path = write(tmp_path / name, rgb, 0) if name == "c.tif" else tmp_path / name
        item = Item(tmp_path / "i.png", path, "m", encoding)
        np.testing.assert_array_equal(training_labels(item, classes=2, ignore_index=255), np.where(hole(), 255, 1))


def test_a_binary_mask_that_declares_its_background_missing_is_asked_about(tmp_path):
    path = write(tmp_path / "m.tif", np.where(hole(), 0, 255).astype(np.uint8), 0)
    with pytest.raises(DataError, match=r"m\.tif: declares 0 as the value of missing data.*contains 255"):
        read_mask(path)


@pytest.mark.parametrize("nodata", [0, 255])
@pytest.mark.parametrize("declared", [True, False])
def test_binary_masks_that_declare_missing_data_are_asked_about(tmp_path, nodata, declared):
    """255 cannot be the foreground and missing; the foreground was trained on where it was missing."""
    for name in ("a", "b"):
        for kind, array in (("images", np.zeros((32, 48, 3), np.uint8)), ("masks", np.where(hole(), 255, 0))):
            path = tmp_path / kind / f"{name}.tif"
            path.parent.mkdir(exist_ok=True)
            tifffile.imwrite(path, array.astype(np.uint8), extratags=tag(nodata) if kind == "masks" else [])
    (tmp_path / "dataset.yaml").write_text("classes: [wall, crack]\n" + "encoding: binary\n" * declared)

    def read():
        data = read_dataset(tmp_path)
        return [training_labels(item, classes=2, ignore_index=data.ignore_index) for item in data.train]

    with pytest.raises(DataError, match=f"declares {nodata} as the value of missing data"):
        read()


@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_prediction_is_void_and_scores_leave_out_missing_pixels(tmp_path, tile):
    array, nodata = image_of("uint8")
    path = write(tmp_path / "a.tif", array, nodata)
    model = predictor()
    predict_files(model, path, tmp_path / "out", tile=tile)
    mask = np.array(Image.open(tmp_path / "out" / "masks" / "a.png"))
    np.testing.assert_array_equal(mask == 255, hole())
    rows = (tmp_path / "out" / "class_shares.csv").read_text().splitlines()
    assert rows[0].endswith(",no data")
    assert float(rows[1].split(",")[-1]) == pytest.approx(hole().mean(), abs=1e-6)
    Image.fromarray(np.zeros((32, 48), np.uint8)).save(tmp_path / "m.png")
    result = evaluate(model, [Item(path, tmp_path / "m.png", "a")], mode="sliding" if tile else "whole")
    assert result["pixels"] == (~hole()).sum()


def test_without_rasterio_missing_data_is_told_all_the_same(tmp_path, monkeypatch):
    array, nodata = image_of("uint8")
    path = write(tmp_path / "a.tif", array, nodata)
    before = read_image(path, with_known=True)
    monkeypatch.setattr("fuzzyseg.data.io.raster.find_spec", lambda name: None)
    np.testing.assert_array_equal(read_image(path, with_known=True), before)
