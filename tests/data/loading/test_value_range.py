"""Ranges of values: 10 to 14 bits in 16, other ranges than those of training, and values that stand apart."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from fuzzyseg.data import Item
from fuzzyseg.data.io.image import Levels, read_image
from fuzzyseg.data.loading.value_range import compare, values_of

RNG = np.random.default_rng(0)


def item(path, array):
    if path.suffix == ".png":
        Image.fromarray(array).save(path)
    else:
        tifffile.imwrite(path, array, photometric="rgb" if array.shape[2] == 3 else "minisblack", planarconfig="contig")
    return Item(path, None, path.stem)


def images(folder, bits, count=3):
    folder.mkdir()
    dtype, suffix = (np.uint8, "png") if bits == 8 else (np.uint16, "tif")
    high = 2**bits - 1
    arrays = [RNG.integers(0, high, (16, 16, 3), endpoint=True).astype(dtype) for _ in range(count)]
    return [item(folder / f"{bits}_{number}.{suffix}", array) for number, array in enumerate(arrays)]


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_fewer_bits_are_told_beside_8_and_to_a_model_of_8(tmp_path, bits):
    eight, deep = images(tmp_path / "eight", 8), images(tmp_path / "deep", bits)
    notes = values_of([*eight, *deep], 3, None).notes(3)
    warned = compare(deep, None, 3, None, None), compare(deep, {"uint8": (0.0, 255.0)}, 3, None, None)
    if bits == 16:
        assert not notes
        assert not any(warned)
        return
    assert f"({bits} bits)" in notes[0]
    assert f"data.high=[{2**bits - 1},{2**bits - 1},{2**bits - 1}]" in notes[0]
    for each in warned:
        assert "almost black" in each[0]
        assert f"({bits} bits)" in each[0]


def test_the_setting_that_is_named_makes_both_alike(tmp_path):
    eight, deep = images(tmp_path / "eight", 8), images(tmp_path / "deep", 12)
    levels = Levels((0.0,) * 3, (4095.0,) * 3)
    tops = [read_image(each.image, levels=levels).max() for each in (*eight, *deep)]
    np.testing.assert_allclose(tops, 1, atol=0.02)


def test_a_model_of_12_bits_is_told_of_8_and_16_bits_but_not_of_12(tmp_path):
    trained = values_of(images(tmp_path / "t", 12), 3, None).ranges
    assert trained["uint16"][1] == pytest.approx(4095, abs=40)
    assert not compare(images(tmp_path / "same", 12), trained, 3, None, Levels())
    for bits in (8, 16):
        assert "far too bright" in compare(images(tmp_path / f"b{bits}", bits), trained, 3, None, Levels())[0]


@pytest.mark.parametrize(("value", "dtype"), [(-9999, np.float32), (-9999, np.int16), (65535, np.uint16)])
def test_a_value_that_no_tag_explains(tmp_path, value, dtype):
    array = RNG.integers(100, 400, (16, 16, 2)).astype(dtype)
    plain = item(tmp_path / "plain.tif", array)
    array[2:5] = value
    result = values_of([item(tmp_path / "a.tif", array), plain], 2, None)
    assert result.outliers == {float(value): 1}
    assert result.ranges[np.dtype(dtype).name][0] >= 100
    assert result.ranges[np.dtype(dtype).name][1] < 400
    assert f"the value {value}, far from all others" in result.notes(2)[0]
    assert not values_of([plain], 2, None).notes(2)
