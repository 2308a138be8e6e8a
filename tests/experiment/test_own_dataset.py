"""Data sets of Python objects as folders."""

import numpy as np
import pytest
from PIL import Image

from fuzzyseg.data import read_dataset
from fuzzyseg.data.io.image import read_image
from fuzzyseg.data.labels.decode import training_labels
from fuzzyseg.experiment.own_dataset import write_dataset


def picture(mode="RGB"):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "RGBA", "LA", "CMYK"])
def test_an_image_of_pillow_is_read_as_its_file(tmp_path, mode):
    image = picture(mode)
    image.save(tmp_path / ("a.tif" if mode == "CMYK" else "a.png"))
    expected = read_image(next(tmp_path.glob("a.*")))
    write_dataset([(image, None)], tmp_path / "out")
    np.testing.assert_array_equal(read_image(tmp_path / "out/images/train/000000.png"), expected)


@pytest.mark.parametrize("orientation", [3, 6])
def test_images_and_masks_of_pillow_are_turned_as_their_files(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    mask = Image.fromarray((np.arange(600).reshape(20, 30) % 3).astype(np.uint8))
    picture().save(tmp_path / "a.jpg", exif=exif)
    mask.save(tmp_path / "m.png", exif=exif)
    write_dataset([(Image.open(tmp_path / "a.jpg"), Image.open(tmp_path / "m.png"))], tmp_path / "out")
    (item,) = read_dataset(tmp_path / "out").train
    np.testing.assert_array_equal(read_image(item.image), read_image(tmp_path / "a.jpg"))
    labels = training_labels(item, classes=3, ignore_index=255)
    turned = np.rot90(np.array(mask), 2 if orientation == 3 else 3)
    np.testing.assert_array_equal(labels, turned)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_no_part_of_a_file_is_left_when_writing_fails(tmp_path, monkeypatch, dtype):
    def cut(path, *_, **__):
        path.write_bytes(b"cut")
        raise OSError("no space")

    monkeypatch.setattr("numpy.save", cut)
    monkeypatch.setattr("PIL.Image.Image.save", lambda _, path, *__, **___: cut(path))
    with pytest.raises(OSError, match="no space"):
        write_dataset([(np.zeros((4, 6, 3), dtype), None)], tmp_path / "out")
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
