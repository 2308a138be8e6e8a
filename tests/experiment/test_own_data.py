"""Their data as it is: trained, scored and predicted without a line of code."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import tifffile
from PIL import Image

from fuzzyseg.config import ConfigError, validate
from fuzzyseg.data import DataError
from fuzzyseg.experiment import evaluate, load_run, predict, train
from fuzzyseg.inference import read_card
from support.small_images import noise, predictor, write
from support.tiny_data import material_of, settings, write_folder

COLOURS = np.array([(128, 64, 128), (64, 0, 128), (70, 130, 180)], np.uint8)


def write_bands(root, bands=5, dtype=np.uint16, colours="found"):
    """`write_folder`'s data as TIFF of N bands, with masks in RGBA colours, void transparent."""
    write_folder(root)
    rng = np.random.default_rng(1)
    for path in sorted(root.glob("images/*/*.png")):
        image = np.array(Image.open(path)).astype(float)
        extra = rng.integers(0, 255, (*image.shape[:2], bands - 3))
        stack = (np.dstack([image, extra]) * (100 if dtype != np.uint8 else 1)).astype(dtype)
        tifffile.imwrite(path.with_suffix(".tif"), stack, photometric="minisblack", planarconfig="contig")
        path.unlink()
    for path in sorted(root.glob("masks/*/*.png")):
        index = np.array(Image.open(path))
        rgba = np.zeros((*index.shape, 4), np.uint8)
        rgba[index < 3, :3] = COLOURS[index[index < 3]]
        rgba[index < 3, 3] = 255
        Image.fromarray(rgba).save(path)
    text = "colours: {low: [128, 64, 128], middle: [64, 0, 128], high: [70, 130, 180]}\n"
    (root / "dataset.yaml").write_text(text if colours == "named" else "")
    return root


@pytest.mark.slow
@pytest.mark.parametrize("colours", ["named", "found"])
def test_bands_and_colours_from_training_to_prediction(tmp_path, colours):
    root = write_bands(tmp_path / "data", colours=colours)
    run = tmp_path / "run"
    kind = {
        "network": {"weights": "none", "channels": 5, "arch": "FPN", "encoder": "mobilenet_v2"},
        "train": {"steps": 4, "crop": [32, 32], "eval_every": 0, "save_every": 2, "stop_at": 2},
        "augment": {"jitter": 0.3},
    }
    train(settings(root, run, **kind), quiet=True)
    kind["train"] = {"steps": 4, "crop": [32, 32], "eval_every": 0, "save_every": 2}
    result = train(settings(root, run, **kind), resume=True, quiet=True)
    assert result.finished
    card = read_card(run)
    names = ["low", "middle", "high"] if colours == "named" else sorted(card.classes, key=_place)
    assert card.classes == names
    record = json.loads((run / "split.json").read_text())
    assert record["input"]["mean"] == card.mean
    assert len(card.mean) == 5
    # 100 times a grey level, of 65535: what was measured, and is no default
    assert 0.05 < card.mean[0] < 0.35
    assert record["encoding"] == json.loads(json.dumps(card.encoding.record()))
    score = evaluate(run, device="cpu")
    assert score["miou"] == pytest.approx(result.result["last"]["miou"], abs=1e-6)
    # A part of the data alone, in which not every colour occurs, is scored by the same classes
    other = tmp_path / "other"
    for kind_of, name in (("images", "im00.tif"), ("masks", "im00.png")):
        (other / kind_of / "val").mkdir(parents=True)
        shutil.copy(root / kind_of / "train" / name, other / kind_of / "val" / name)
    mask = np.array(Image.open(other / "masks/val/im00.png"))
    mask[..., :3] = COLOURS[1]
    Image.fromarray(mask).save(other / "masks/val/im00.png")
    alone = evaluate(run, data=other, device="cpu")
    assert list(alone["per_class"]) == card.classes
    written, failures = predict(run, root / "images" / "val", tmp_path / "out", encoded=True, device="cpu")
    assert not failures
    found = np.array(Image.open(tmp_path / "out" / "masks" / "im16.png"))
    assert {tuple(colour) for colour in found.reshape(-1, 3)} <= {tuple(colour) for colour in COLOURS.tolist()}
    assert len(written) == 7  # masks, overlays, shares of classes
    kept = tmp_path / "gone"
    (root / "images").rename(kept)
    with pytest.raises(DataError, match="masks"):
        evaluate(run, device="cpu")


def _place(name):
    return [int(part) for part in name.split("_")[1:]]


def test_images_that_are_not_plain_rgb_are_measured_and_asked_about(tmp_path):
    root = write_bands(tmp_path / "data", bands=4, dtype=np.float32, colours="named")
    with pytest.raises(
        DataError, match=r"im\d\d\.tif: has 4 bands, but the network takes 3 channels.*network\.channels=4"
    ):
        material_of(validate(settings(root, tmp_path / "run")))
    network = {"weights": "none", "channels": 4}
    material = material_of(validate(settings(root, tmp_path / "run", network=network)))
    every = np.concatenate([tifffile.imread(item.image).reshape(-1, 4) for item in material.split.all_]).astype(float)
    np.testing.assert_allclose(material.card.levels.low, every.min(0), rtol=1e-6)
    units = (every - every.min(0)) / np.ptp(every, 0)
    np.testing.assert_allclose(material.card.mean, units.mean(0), rtol=1e-5)
    np.testing.assert_allclose(material.card.std, units.std(0), rtol=1e-5)
    assert "measured on" in material.sentences[0]
    given = {"mean": [0.1] * 4, "std": [0.2] * 4, "low": [0.0] * 4, "high": [9.0] * 4}
    material = material_of(validate(settings(root, tmp_path / "run", network=network, data=given)))
    assert (material.card.mean, material.card.levels.high) == ([0.1] * 4, (9.0,) * 4)
    chosen = {"bands": [4, 2]}
    network["channels"] = 2
    material = material_of(validate(settings(root, tmp_path / "run", network=network, data=chosen)))
    np.testing.assert_allclose(material.card.mean, units.mean(0)[[3, 1]], rtol=1e-5)
    network["channels"] = 3
    with pytest.raises(ConfigError, match=r"data\.bands: found 2 bands for network\.channels=3"):
        material_of(validate(settings(root, tmp_path / "run", network=network, data=chosen)))


def test_another_description_and_a_limit_of_pixels(tmp_path, monkeypatch):
    root = write_folder(tmp_path / "data")
    (tmp_path / "merged.yaml").write_text("classes: [low, middle, high]\nmerge: {rest: [middle, high]}\n")
    data = {"description": str(tmp_path / "merged.yaml")}
    material = material_of(validate(settings(root, tmp_path / "run", data=data)))
    assert material.dataset.classes == ["low", "rest"]
    data = {"description": str(tmp_path / "nowhere.yaml")}
    with pytest.raises(DataError, match=r"nowhere\.yaml: cannot be read"):
        material_of(validate(settings(root, tmp_path / "run", data=data)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    with pytest.raises(DataError, match=r"im\d\d\.png.*data\.max_megapixels"):
        train(settings(root, tmp_path / "run"), quiet=True)
    kind = {"data": {"max_megapixels": 1}, "train": {"steps": 1, "crop": [32, 32], "eval_every": 0}}
    kind["network"] = {"weights": "none", "arch": "FPN", "encoder": "mobilenet_v2"}
    assert train(settings(root, tmp_path / "small", **kind), quiet=True).finished
    evaluate(tmp_path / "small", device="cpu")
    assert not predict(tmp_path / "small", root / "images/val", tmp_path / "out", device="cpu")[1]
    assert Image.MAX_IMAGE_PIXELS == 500


def test_a_score_without_the_pixels_of_a_declared_value_says_so(tmp_path, monkeypatch, caplog):
    write(tmp_path / "images/a.png", noise(6, 8))
    (tmp_path / "masks").mkdir()
    mask = np.tile(np.array([0, 1, 2, 0], np.uint8), (6, 2))
    tifffile.imwrite(tmp_path / "masks/a.tif", mask, extratags=[(42113, "s", 0, "0", True)])
    (tmp_path / "dataset.yaml").write_text("classes: [class0, class1, class2]\n")
    monkeypatch.setattr(load_run, "load", lambda *_, **__: predictor())
    result = evaluate(tmp_path / "model", data=tmp_path, device="cpu")
    assert result["split"] == "all"
    assert result["pixels"] == 24
    assert "1 of 1 TIFF masks declare 0 as missing data" in caplog.text
