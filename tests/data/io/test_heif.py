"""Images of phones, which are read where pillow-heif is installed."""

from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image

from fuzzyseg.data.io.find import find_images
from fuzzyseg.data.io.header import file_size
from fuzzyseg.data.io.image import read_image


def test_they_are_counted_where_it_is_missing(tmp_path):
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic")
    result = find_images(tmp_path)
    assert bool(result.files) == (find_spec("pillow_heif") is not None)
    assert bool(result.others) != bool(result.files)


def test_they_are_read(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:20, 30:] = 200, 30, 90
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, more in (("a.heic", {}), ("turned.HEIF", {"exif": exif.tobytes()})):
        Image.fromarray(pixels).save(tmp_path / name, format="HEIF", quality=-1, **more)
    result = [read_image(path) for path in find_images(tmp_path).files]
    assert [each.shape for each in result] == [(40, 60, 3), (60, 40, 3)]
    assert [file_size(path) for path in find_images(tmp_path).files] == [(40, 60), (60, 40)]
    assert np.abs(result[0].astype(int) - pixels).mean() < 3
    assert np.abs(result[1].astype(int) - np.rot90(pixels, -1)).mean() < 3
