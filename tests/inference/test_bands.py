"""Models of N bands and of 16 bits; results in the masks' own encoding; large files by windows, the same result."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from torch import nn

from fuzzyseg.data import DataError
from fuzzyseg.data.io.image import Levels, read_image
from fuzzyseg.data.io.mask import read_mask
from fuzzyseg.data.sample import Encoding
from fuzzyseg.inference import ModelCard, Predictor, load, predict_files, save_model
from fuzzyseg.inference import predictor as room

COLOURS = [(128, 64, 128), (64, 0, 128), (70, 130, 180)]
CODED = Encoding(colours=tuple((*colour, index) for index, colour in enumerate(COLOURS)), text="coloured")


class Point(nn.Module):
    """Logits of a pixel depend on its bands alone."""

    def __init__(self, bands: int = 5) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(bands, 3, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return 3 * self.encoder(image)


def model(channels: int = 5, **changes) -> Predictor:
    torch.manual_seed(0)
    settings = {"levels": Levels(), "mean": [0.5] * channels, "std": [0.3] * channels, **changes}
    return Predictor(Point(channels), ModelCard(["a", "b", "c"], crop=(24, 30), channels=channels, **settings))


def write(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, array, photometric="minisblack", planarconfig="contig", **options)
    return path


def numbers(height, width, bands=5, dtype=np.uint16):
    values = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (height // 4 + 1, width // 4 + 1, bands))
    return values.repeat(4, 0).repeat(4, 1)[:height, :width].astype(dtype)


def literal(predictor: Predictor, units: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        pixels = (torch.tensor(units).movedim(-1, 0) - 0.5) / 0.3
        return predictor.network(pixels.unsqueeze(0)).argmax(1)[0].numpy()


def test_a_file_of_16_bits_and_five_bands(tmp_path):
    stored = numbers(20, 30)
    path, predictor = write(tmp_path / "in/a.tif", stored), model()
    expected = literal(predictor, stored.astype(np.float32) / 65535)
    assert len(np.unique(expected)) > 1
    _, failures = predict_files(predictor, path, tmp_path / "out")
    assert not failures
    np.testing.assert_array_equal(read_mask(tmp_path / "out/masks/a.png"), expected)
    assert read_image(tmp_path / "out/overlays/a.png").shape[0] > 20
    # In memory: units, or the numbers of the file
    np.testing.assert_array_equal(predictor.labels(stored).numpy(), expected)
    np.testing.assert_array_equal(predictor.labels(stored.astype(np.float32) / 65535).numpy(), expected)
    with pytest.raises(DataError, match=r"float64.*data\.low"):
        predictor.labels(stored.astype(np.float64))
    with pytest.raises(DataError, match="expected uint8, an array"):
        model(levels=None).labels(stored)


def test_a_choice_of_bands_and_measured_levels(tmp_path):
    stored = numbers(12, 14).astype(np.float32) - 3000
    low, high = (-3000.0, -1000.0), (60000.0, 50000.0)
    predictor = model(2, bands=[4, 2], levels=Levels(low, high))
    path = write(tmp_path / "a.tif", stored)
    predict_files(predictor, path, tmp_path / "out", write=["mask"])
    units = (stored[..., [3, 1]] - np.array(low)) / (np.array(high) - np.array(low))
    np.testing.assert_array_equal(read_mask(tmp_path / "out/masks/a.png"), literal(predictor, units.astype(np.float32)))


def test_fractions_are_no_numbers_of_integer_files():
    stored = numbers(8, 9)
    trained = {"uint16": (0.0, 65535.0)}
    predictor = model(levels=Levels((0.0,) * 5, (65535.0,) * 5), value_range=trained)
    predictor.labels(stored)
    with pytest.raises(DataError, match="type float64; expected"):
        predictor.labels(stored / 65535)
    assert torch.equal(predictor.labels((stored / 65535).astype(np.float32)), predictor.labels(stored))
    floats = model(levels=Levels((0.0,) * 5, (65535.0,) * 5), value_range={"float64": (0.0, 65535.0)})
    assert torch.equal(floats.labels(stored.astype(np.float64)), predictor.labels(stored))


def test_a_saved_model_knows_bands_levels_and_encoding(tmp_path):
    predictor = model(2, bands=[4, 2], levels=Levels((0.0, 1.0), (2.0, 3.0)), encoding=CODED, colours=COLOURS)
    save_model(tmp_path / "model", predictor.network, card=predictor.card)
    assert load(tmp_path / "model", network=lambda: Point(2)).card == predictor.card


@pytest.mark.parametrize("encoded", [False, True])
@pytest.mark.parametrize("kind", ["tiles", "strips", "numpy"])
def test_windows_give_the_files_of_the_whole(tmp_path, monkeypatch, kind, encoded):
    stored = numbers(90, 110)
    if kind == "numpy":
        path = tmp_path / "a.npy"
        np.save(path, stored)
    else:
        options = {"tile": (32, 32)} if kind == "tiles" else {"rowsperstrip": 8}
        path = write(tmp_path / "a.tif", stored, **options)
    predictor = model(encoding=CODED, colours=COLOURS)
    monkeypatch.setattr(room, "MAX_PIXELS", 4000)
    monkeypatch.setattr(room, "TILE", (40, 48))
    with monkeypatch.context() as patch:
        patch.setattr("fuzzyseg.data.io.image.open_windows", lambda *_, **__: None)
        predict_files(predictor, path, tmp_path / "whole", encoded=encoded)
    limit = 3000  # less than the image: it cannot be decoded whole
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    written, failures = predict_files(predictor, path, tmp_path / "parts", encoded=encoded)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10**8)
    assert not failures
    assert len(written) == 3
    for name in ("masks/a.png", "overlays/a.png"):
        a, b = (Image.open(tmp_path / folder / name) for folder in ("whole", "parts"))
        assert a.mode == b.mode
        np.testing.assert_array_equal(np.array(a), np.array(b))
    predict_files(predictor, path, tmp_path / "asked", encoded=encoded, tile=(50, 50))
    np.testing.assert_array_equal(
        np.array(Image.open(tmp_path / "asked/masks/a.png")), np.array(Image.open(tmp_path / "parts/masks/a.png"))
    )


def test_a_file_of_lost_strips_has_no_mask_by_windows_either(tmp_path):
    path = write(tmp_path / "a.tif", numbers(90, 110), rowsperstrip=8)
    with tifffile.TiffFile(path) as file:
        tag = file.pages[0].tags["StripByteCounts"]
        place, size = tag.valueoffset, tag.valuebytecount // tag.count
    data = bytearray(path.read_bytes())
    data[place + 9 * size : place + 10 * size] = bytes(size)
    path.write_bytes(bytes(data))
    for tile in (None, (50, 50)):
        written, failures = predict_files(model(), path, tmp_path / "out", tile=tile)
        assert not written
        assert "a.tif: some of its pixels are missing" in str(failures[0])
        assert not list((tmp_path / "out").rglob("*.png"))


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        (CODED, lambda index: np.array(COLOURS)[index]),
        (Encoding(table=((7, 0), (9, 1), (200, 2))), lambda index: np.array([7, 9, 200])[index]),
        (Encoding(reduce_zero=True), lambda index: index + 1),
        (None, lambda index: index),
    ],
)
def test_masks_in_the_encoding_that_was_learnt_from(tmp_path, encoding, expected):
    stored = numbers(20, 30)
    path, predictor = write(tmp_path / "a.tif", stored), model(encoding=encoding)
    index = literal(predictor, stored.astype(np.float32) / 65535)
    predict_files(predictor, path, tmp_path / "out", write=["mask"], encoded=True)
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "out/masks/a.png")), expected(index))


def test_index_masks_have_the_classes_colours_as_palette(tmp_path):
    path, stored = tmp_path / "a.tif", numbers(20, 30)
    write(path, stored)
    predict_files(model(colours=COLOURS), path, tmp_path / "out", write=["mask"])
    image = Image.open(tmp_path / "out/masks/a.png")
    assert image.mode == "P"
    index = read_mask(tmp_path / "out/masks/a.png")
    np.testing.assert_array_equal(np.array(image.convert("RGB")), np.array(COLOURS)[index])
    predict_files(model(), path, tmp_path / "plain", write=["mask"])
    assert Image.open(tmp_path / "plain/masks/a.png").mode == "L"
