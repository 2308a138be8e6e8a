"""Outputs besides mask and overlay: their values, and GeoTIFF that keeps its place on the map."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, TiffImagePlugin

from fuzzyseg.data import DataError
from fuzzyseg.data.io.mask import read_mask
from fuzzyseg.inference import predict_files
from fuzzyseg.inference import predictor as room
from fuzzyseg.inference.outputs import Fuzzy, rasters
from fuzzyseg.losses import assign_fuzzy_positives
from fuzzyseg.losses.fpl.options import FPLOptions
from support.small_images import noise, predictor, write

COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]


def picture(path: Path) -> np.ndarray:
    return np.array(Image.open(path))


@pytest.mark.parametrize(("large", "temperature"), [(False, 1.0), (True, 2.5)])
def test_values_of_every_output(tmp_path, monkeypatch, large, temperature):
    if large:
        monkeypatch.setattr(room, "MAX_PIXELS", 100)
        monkeypatch.setattr(room, "TILE", (16, 16))
    model, image = predictor(colours=COLOURS, temperature=temperature), noise(21, 34)
    kinds = ["colour", "uncertainty", "k", "sets", "probabilities", "probabilities8"]
    fuzzy = Fuzzy(0.7, FPLOptions(rule="n"))
    written, failures = predict_files(
        model, write(tmp_path / "in/a.v2.png", image), tmp_path / "out", write=kinds, fuzzy=fuzzy
    )
    assert not failures
    assert all(path.is_file() for path in written)
    assert len(written) == 1 + 5 + 3 + 1
    logits = model.logits(image)
    p, mask, out = (logits / temperature).softmax(0), model.labels(image).numpy(), tmp_path / "out"
    assert np.array_equal(read_mask(out / "masks/a.v2.png"), mask)
    assert np.array_equal(picture(out / "colours/a.v2.png"), np.array(COLOURS)[mask])
    entropy = -(p * p.log()).sum(0) / np.log(3)
    assert np.abs(picture(out / "uncertainty/a.v2.png") - 255 * entropy.numpy()).max() <= 0.51
    for place in range(3):
        result = picture(out / f"probabilities8/a.v2/{place:03}_class{place}.png")
        assert np.abs(result - 255 * p[place].numpy()).max() <= 0.51
    assert np.allclose(np.load(out / "probabilities/a.v2.npz")["probabilities"], p.numpy(), atol=1e-3)
    with np.load(out / "sets/a.v2.npz") as stored:
        sets = np.unpackbits(stored["sets"], axis=0, count=3).astype(bool)
        assert stored["classes"].tolist() == model.classes
    expected = assign_fuzzy_positives(logits[None], threshold=0.7, rule="n")[0].numpy()
    assert 0.1 < expected.mean() < 0.9
    assert np.array_equal(sets, expected)
    assert np.array_equal(picture(out / "k/a.v2.png"), expected.sum(0))


def test_names_of_outputs_are_checked(tmp_path):
    with pytest.raises(DataError, match=r"--write: found masks; expected some of mask, overlay"):
        predict_files(predictor(), write(tmp_path / "a.png", noise(8, 9)), tmp_path / "out", write=["masks"])


def test_a_large_overlay_is_reduced(tmp_path, monkeypatch):
    monkeypatch.setattr(rasters, "MAX_OVERLAY_PIXELS", 40 * 50)
    model, image = predictor(colours=COLOURS), noise(81, 101)
    predict_files(model, write(tmp_path / "a.png", image), tmp_path / "out")
    assert picture(tmp_path / "out/masks/a.png").shape == (81, 101)
    shown = picture(tmp_path / "out/overlays/a.png").astype(int)[:27, :34]
    colours = np.array(COLOURS)[model.labels(image).numpy()]
    assert np.abs(shown - ((image.astype(int) + colours) / 2)[::3, ::3]).max() <= 1


def geotiff(path: Path, image: np.ndarray, **profile) -> Path:
    rasterio = pytest.importorskip("rasterio")
    height, width, count = image.shape
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(0.5, 0, 4e5, 0, -0.5, 5.2e6)}
    kind = {"height": height, "width": width, "count": count, "dtype": image.dtype.name, **place, **profile}
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(path, "w", driver="GTiff", **kind) as file:
        file.write(np.moveaxis(image, -1, 0))
    return path


@pytest.mark.parametrize("large", [False, True])
def test_a_geotiff_gives_geotiffs_of_the_same_place(tmp_path, monkeypatch, large):
    if large:
        monkeypatch.setattr(room, "MAX_PIXELS", 100)
        monkeypatch.setattr(room, "TILE", (32, 48))
    rasterio = pytest.importorskip("rasterio")
    image = noise(150, 130)
    image[40:60, 10:30] = 0
    file = geotiff(tmp_path / "in/map.tif", image, nodata=0, tiled=True, blockxsize=32, blockysize=32)
    write(tmp_path / "in/plain.tif", image[:20])
    model, kinds = predictor(), ["overlay", "uncertainty", "k", "probabilities8", "cvat"]
    written, failures = predict_files(model, tmp_path / "in", tmp_path / "out", write=kinds)
    assert not failures
    names = {path.relative_to(tmp_path / "out").as_posix() for path in written if path.name.startswith("map")}
    assert names == {f"{kind}/map.tif" for kind in ("masks", "overlays", "uncertainty", "k")}
    assert (tmp_path / "out/masks/plain.png").is_file()
    with rasterio.open(file) as source:
        for path in written:
            if path.suffix == ".tif":
                with rasterio.open(path) as result:
                    assert (result.crs, result.transform, result.shape) == (source.crs, source.transform, source.shape)
                    assert result.profile["tiled"] and result.profile["compress"] == "deflate"
                    assert result.nodata == {"masks": 255, "k": 0}.get(path.parent.name)
                    assert result.count == (3 if path.parent.name == "overlays" else 1)
    mask = read_mask(tmp_path / "out/masks/map.tif")
    known = (image != 0).any(-1)
    for kind in ("overlays/map", "uncertainty/map", "probabilities8/map/001_class1"):  # 0 is a value, too
        with rasterio.open(tmp_path / f"out/{kind}.tif") as found:
            assert np.array_equal(found.dataset_mask() > 0, known)
    assert np.array_equal(mask == 255, ~known)
    assert np.array_equal(mask[known], model.labels(image).numpy()[known])
    p = model.logits(image).softmax(0)
    with rasterio.open(tmp_path / "out/probabilities8/map/001_class1.tif") as result:
        assert np.abs(result.read(1)[known] - 255 * p[1].numpy()[known]).max() <= 0.51
    with rasterio.open(tmp_path / "out/overlays/map.tif") as result:
        assert np.array_equal(result.read()[:, ~known], np.moveaxis(image, -1, 0)[:, ~known])
    with zipfile.ZipFile(tmp_path / "out/cvat.zip") as archive:
        assert set(archive.namelist()) >= {"SegmentationClass/map.png", "SegmentationClass/plain.png"}


def test_without_rasterio_a_lost_georeference_is_named(tmp_path, monkeypatch, caplog):
    for module in ("inference.predict", "inference.outputs.rasters", "data.io.raster"):
        monkeypatch.setattr(f"fuzzyseg.{module}.find_spec", lambda name: None)
    write(tmp_path / "in/plain.tif", noise(8, 9))
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[33550], tags.tagtype[33550] = (0.5, 0.5, 0.0), 12  # size of a pixel
    Image.fromarray(noise(8, 9)).save(tmp_path / "in/map.tif", tiffinfo=tags)
    predict_files(predictor(), tmp_path / "in", tmp_path / "out", write=["mask"])
    (warning,) = (record.message for record in caplog.records if "georeference" in record.message)
    assert "map.tif" in warning and "fuzzyseg[geo]" in warning and "plain.tif" not in warning
    assert (tmp_path / "out/masks/map.png").is_file()


class Wide(torch.nn.Module):
    """A network of stride 4 whose cells see 4 pixels to each side; each gives 4 x 4 pixels."""

    divisor = 4

    def __init__(self) -> None:
        super().__init__()
        self.encoder = torch.nn.Conv2d(3, 3, 12, stride=4, padding=4)

    def forward(self, image):
        return 20 * self.encoder(image).repeat_interleave(4, 2).repeat_interleave(4, 3)


def test_blended_windows_agree_with_the_whole_image(monkeypatch):
    """The seam test: 2,000 x 2,000 pixels in windows of 1,024 are these sizes times ten."""
    model, image = predictor(Wide()), noise(200, 203)
    whole = model.logits(image).softmax(0)
    sliding = {"mode": "sliding", "window": (96, 96)}
    blended = model.logits(image, room.Protocol(**sliding, blend=True)).softmax(0)
    equal = model.logits(image, room.Protocol(**sliding)).softmax(0)
    inner = (slice(None), slice(24, -24), slice(24, -24))
    assert (blended - whole)[inner].abs().max() < 1e-3
    assert (equal - whole)[inner].abs().max() > 0.05  # windows that start anywhere, whose borders weigh as much
    monkeypatch.setattr(room, "MAX_PIXELS", 100)
    monkeypatch.setattr(room, "TILE", (96, 96))
    large = model.logits(image, room.Protocol(blend=True)).softmax(0)
    assert torch.equal(large, blended)
    rows = model.probability_rows(
        lambda box: image[box[0] : box[2], box[1] : box[3]], (200, 203), room.Protocol(blend=True)
    )
    torch.testing.assert_close(torch.cat([part for _, part in rows], 1), blended)


def test_a_suspended_prediction_leaves_gradients_and_modes_alone():
    """Two at a time, as in suggestions by two networks, once left gradients disabled for good."""
    model, image = predictor(Wide()), noise(200, 203)
    model.network.train()
    read = lambda box: image[box[0] : box[2], box[1] : box[3]]  # noqa: E731
    protocol = room.Protocol(mode="sliding", window=(96, 96))
    for _ in zip(*(model.probability_rows(read, (200, 203), protocol) for _ in range(2)), strict=True):
        assert torch.is_grad_enabled() and model.network.training
    assert torch.is_grad_enabled() and model.network.training


def test_views_of_windows(monkeypatch):
    """Scales and the mirrored image of each window of a large image are those of the whole, for a network of pixels."""
    model, image = predictor(), noise(60, 80)
    protocol = room.Protocol(scales=(1.0, 2.0), flip=True, blend=True)
    whole = model.logits(image, protocol).softmax(0)
    monkeypatch.setattr(room, "MAX_PIXELS", 40 * 40)
    monkeypatch.setattr(room, "TILE", (20, 20))
    assert model.reads_by_windows((60, 80), protocol)
    assert not model.reads_by_windows((60, 80), room.Protocol(scales=(1.0, 2.0)))
    read = lambda box: image[box[0] : box[2], box[1] : box[3]]  # noqa: E731
    rows = torch.cat([part for _, part in model.probability_rows(read, (60, 80), protocol)], 1)
    assert (rows - whole).abs().mean() < 0.02
