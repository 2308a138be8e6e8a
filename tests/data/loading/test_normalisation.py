"""Mean, deviation and range of each band, against numpy on all pixels at once."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from fuzzyseg.data import DataError, Item
from fuzzyseg.data.io.image import Levels
from fuzzyseg.data.loading import normalisation as room
from fuzzyseg.data.loading.normalisation import kinds_of, measure


def items(folder, arrays):
    made = []
    for number, array in enumerate(arrays):
        path = folder / f"{number}.npy"
        np.save(path, array)
        made.append(Item(path, None, str(number)))
    return made


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
def test_bands_of_all_images_together(tmp_path, dtype):
    rng = np.random.default_rng(0)
    scale = np.array([1.0, 3.0, 0.2, 1.5])
    arrays = [
        (rng.normal(60, 9, (10 + i, 12, 4)) * scale + (20000 * (i % 2) if dtype == np.uint16 else 0)).astype(dtype)
        for i in range(5)
    ]
    every = np.concatenate([array.reshape(-1, 4) for array in arrays]).astype(float)
    low, high = (
        {np.uint8: (0, 255), np.uint16: (0, 65535)}.get(dtype) or (every.min(0), every.max(0))
    )  # fmt: skip
    units = (every - low) / (np.subtract(high, low))
    result = measure(items(tmp_path, arrays), kinds_of(items(tmp_path, arrays), 4), 4, None)
    np.testing.assert_allclose(result.mean, units.mean(0), rtol=1e-5)
    np.testing.assert_allclose(result.std, units.std(0), rtol=1e-4)
    if dtype == np.uint8:
        assert result.levels is None
    elif dtype == np.uint16:
        assert result.levels == Levels()
    else:
        np.testing.assert_allclose((result.levels.low, result.levels.high), (low, high), rtol=1e-6)


def test_large_values_that_vary_little_keep_their_deviation(tmp_path):
    array = (1e6 + np.random.default_rng(0).normal(0, 0.5, (40, 40, 2))).astype(np.float64)
    result = measure(items(tmp_path, [array]), kinds_of(items(tmp_path, [array]), 2), 2, None)
    span = array.max((0, 1)) - array.min((0, 1))
    np.testing.assert_allclose(np.array(result.std) * span, array.std((0, 1)), rtol=1e-6)


def test_chosen_bands_missing_data_and_constant_bands(tmp_path):
    array = np.random.default_rng(0).random((9, 8, 4)).astype(np.float32)
    array[0, 0, 1], array[1, 1, 1], array[..., 3] = np.nan, np.inf, 7
    made = items(tmp_path, [array])
    result = measure(made, kinds_of(made, 2), 2, [4, 2])
    finite = array[..., 1][np.isfinite(array[..., 1])]
    assert (result.mean[0], result.std[0]) == (0.0, 1.0)
    np.testing.assert_allclose(result.mean[1], (finite.mean() - finite.min()) / np.ptp(finite), rtol=1e-5)
    np.save(made[0].image, np.full((9, 8, 4), np.nan))
    with pytest.raises(DataError, match=r"0\.npy and 0 more images: a band has no finite value"):
        measure(made, kinds_of(made, 4), 4, None)


def test_given_levels_are_the_units(tmp_path):
    array = np.random.default_rng(0).random((9, 8, 2)).astype(np.float32)
    made = items(tmp_path, [array])
    result = measure(made, kinds_of(made, 2), 2, None, Levels((0.0, -1.0), (2.0, 1.0)))
    np.testing.assert_allclose(result.mean, [array[..., 0].mean() / 2, (array[..., 1].mean() + 1) / 2], rtol=1e-5)


def test_of_a_large_file_windows_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "WINDOW", 16)
    array = np.random.default_rng(0).integers(0, 60000, (200, 300, 4)).astype(np.uint16)
    array[100:110, 100:110] = 65535
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack", planarconfig="contig", tile=(16, 16))
    item = Item(tmp_path / "a.tif", None, "a")
    monkeypatch.setattr(room, "read_image", lambda *_, **__: pytest.fail("the whole image was read"))
    result = measure([item], kinds_of([item], 4), 4, None)
    np.testing.assert_allclose(result.mean, array.mean((0, 1)) / 65535, rtol=0.03)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("window", [8, 512])
def test_an_image_that_is_too_large_to_be_decoded_whole_is_measured_by_windows(tmp_path, monkeypatch, dtype, window):
    array = np.tile(np.arange(1, 65).reshape(8, 8), (16, 12))[..., None].repeat(2, 2).astype(dtype)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, array, tile=(16, 32), photometric="minisblack", planarconfig="contig")
    monkeypatch.setattr(room, "WINDOW", window)
    made = [Item(path, None, "a")]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10**6)
    whole = measure(made, kinds_of(made, 2), 2, None)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", array.shape[0] * array.shape[1] - 1)
    result = measure(made, kinds_of(made, 2), 2, None)
    np.testing.assert_allclose(result.mean, whole.mean, rtol=1e-6)
    np.testing.assert_allclose(result.std, whole.std, rtol=1e-6)
    assert result.levels == whole.levels


def test_kinds(tmp_path):
    def saved(name, array):
        Image.fromarray(array).save(tmp_path / name)
        return Item(tmp_path / name, None, name)

    grey, rgb = np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.uint8)
    plain = [saved("a.png", rgb), saved("b.jpg", grey), saved("c.png", np.zeros((4, 4, 4), np.uint8))]
    assert kinds_of(plain, 3).plain
    assert kinds_of(plain, 3).levels is None
    assert not kinds_of(plain[1:2], 3).plain  # grey alone has no colour that weights could expect
    assert not kinds_of(plain, 1).plain
    deep = [*plain, saved("d.png", np.zeros((4, 4), np.uint16))]
    assert not kinds_of(deep, 3).plain
    assert kinds_of(deep, 3).levels == Levels()
    assert kinds_of(deep, 3).words() == "images have 1, 3, 4 bands of uint16 and uint8"
