"""From a teacher's run to a student: stored predictions, inherited data, errors, resuming."""

from __future__ import annotations

import contextlib
import importlib
import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from fuzzyseg.config import ConfigError
from fuzzyseg.data import DataError, Item
from fuzzyseg.data.io.scores import read_scores
from fuzzyseg.data.transforms.lazy import Large
from fuzzyseg.experiment import train
from fuzzyseg.experiment.distill import defaults, distill
from fuzzyseg.inference import load
from fuzzyseg.inference.model_card import CARD_NAME
from support.small_images import card
from support.tiny_data import settings, write_folder

room = importlib.import_module("fuzzyseg.experiment.distill")

TINY = {"network.arch": "FPN", "network.encoder": "mobilenet_v2", "network.weights": "none"}
SHORT = {"train.steps": 4, "train.tensorboard": False, "train.workers": 0, "train.device": "cpu"}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    root = tmp_path_factory.mktemp("distill")
    write_folder(root / "data", size=(40, 48))
    base = settings(
        root / "data", root / "teacher", train={"steps": 3, "crop": [32, 32]}, method={"name": "supervised"}
    )
    base["loss"] = {}
    base["network"] |= {"arch": "FPN", "encoder": "mobilenet_v2"}
    train(base, quiet=True)
    return root / "teacher"


def student(teacher, out, **options):
    config = defaults(teacher)
    return distill(teacher, config, quiet=True, out=str(out), **TINY | SHORT | options)


def test_a_student_learns_from_the_teachers_probabilities_of_the_unlabelled_images(teacher, tmp_path):
    result = student(teacher, tmp_path / "run")
    assert result.finished
    split = json.loads((tmp_path / "run" / "split.json").read_text())
    of_teacher = json.loads((teacher / "split.json").read_text())
    assert [split[key] for key in ("labelled", "unlabelled", "val")] == [
        of_teacher[key] for key in ("labelled", "unlabelled", "val")
    ]
    (labels,) = (tmp_path / "run.labels").iterdir()
    files = {path.relative_to(labels).as_posix().partition("-")[0]: path for path in labels.rglob("*.npz")}
    assert sorted(files) == sorted(split["unlabelled"])
    predictor = load(teacher)
    for name, file in list(files.items())[:3]:
        found = read_scores(Item(Path(), None, name, scores=file)).softmax(0)
        image = next((teacher.parent / "data" / "images").rglob(f"{Path(name).name}.png"))
        whole = predictor.predict(image).probabilities.unsqueeze(0)
        there = torch.nn.functional.interpolate(whole, size=found.shape[1:], mode="area")[0]
        assert (found - there).abs().mean() < 0.05
    assert max(path.stat().st_size for path in labels.rglob("*.npz")) < 3 * 40 * 48  # far less than a byte a logit


def test_predictions_are_made_once_and_shared(teacher, tmp_path):
    student(teacher, tmp_path / "a", labels=tmp_path / "labels")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "labels").rglob("*.npz")}
    next(iter(before)).unlink()
    seen = []
    student(teacher, tmp_path / "b", labels=tmp_path / "labels", loss="hard", progress=lambda *c: seen.append(c))
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "labels").rglob("*.npz")}
    assert after.keys() == before.keys()
    assert sum(after[path] != before[path] for path in before) == 1
    assert seen[-1] == (len(before), len(before))


def stored(folder):
    """The content of the stored predictions by path."""
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.npz")}


def test_the_predictions_of_two_teachers_do_not_mix(teacher, tmp_path, monkeypatch):
    monkeypatch.setattr(room, "train", lambda settings, **_: settings.data.scores)
    first = student(teacher, tmp_path / "a", labels=tmp_path / "labels")
    before = stored(Path(first))
    other = tmp_path / "other"
    shutil.copytree(teacher, other)
    file = other / "model" / CARD_NAME
    file.write_text(json.dumps(json.loads(file.read_text()) | {"temperature": 3.0}))
    second = student(other, tmp_path / "b", labels=tmp_path / "labels")
    assert stored(Path(first)) == before
    assert before.keys() == stored(Path(second)).keys() and before != stored(Path(second))


def test_students_on_other_images_of_the_same_names_share_a_folder(teacher, tmp_path, monkeypatch):
    monkeypatch.setattr(room, "train", lambda settings, **_: settings.data.scores)
    folders = []
    for number, size in ((1, (32, 32)), (2, (48, 64))):
        (tmp_path / f"u{number}").mkdir()
        Image.new("RGB", size, (90 * number, 10, 30)).save(tmp_path / f"u{number}" / "x.png")
        given = {"data.unlabelled_from": [str(tmp_path / f"u{number}")], "labels": tmp_path / "labels"}
        folders.append(student(teacher, tmp_path / f"s{number}", **given))
        if number == 1:
            before = stored(tmp_path / "labels")
    assert folders[0] == folders[1]
    after = stored(tmp_path / "labels")
    assert {path: after[path] for path in before} == before
    assert len(after) == len(before) + 1


@pytest.mark.skipif(find_spec("rasterio") is None, reason="rasterio is not installed")
def test_large_images_are_predicted_in_windows(teacher, tmp_path, monkeypatch):
    monkeypatch.setattr(room, "train", lambda settings, **_: settings.data.scores)
    (tmp_path / "u").mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (96, 64, 3), np.uint8)
    tifffile.imwrite(tmp_path / "u" / "x.tif", pixels, photometric="rgb", compression="zlib", tile=(16, 16))
    given = {"data.unlabelled_from": [str(tmp_path / "u")]}
    whole = student(teacher, tmp_path / "a", **given)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 96 * 64 - 1)
    monkeypatch.setattr(importlib.import_module("fuzzyseg.inference.predictor"), "TILE", (64, 64))
    parts = student(teacher, tmp_path / "b", **given)
    (first,), (second,) = (Path(folder).rglob("x-*.npz") for folder in (whole, parts))
    a, b = (read_scores(Item(Path(), None, "x", scores=path)).softmax(0) for path in (first, second))
    assert a.shape == b.shape
    assert (a - b).abs().mean() < 0.02  # windows see less around their borders


@pytest.mark.parametrize("lazy", [False, True])
def test_the_logits_of_a_large_image_are_those_of_the_whole(monkeypatch, lazy):
    predictor = importlib.import_module("fuzzyseg.inference.predictor")
    network = torch.nn.Conv2d(3, 4, 1)
    model = predictor.Predictor(network, card(list("abcd"), mean=[0.0] * 3, std=[1.0] * 3))
    pixels = np.random.default_rng(0).integers(0, 255, (61, 47, 3), np.uint8)
    image = torch.from_numpy(pixels).movedim(-1, 0)
    expected = room._reduced(model, image, 4).log_softmax(0)
    monkeypatch.setattr(predictor, "TILE", (24, 20))
    monkeypatch.setattr(predictor, "MAX_PIXELS", 1000)
    large = Large((3, 61, 47), lambda box: pixels[box[0] : box[2], box[1] : box[3]]) if lazy else image
    result = room._reduced(model, large, 4).log_softmax(0)
    assert result.shape == (4, 15, 12)
    assert torch.allclose(result, expected, atol=1e-5)


def test_missing_predictions_are_named(teacher, tmp_path):
    student(teacher, tmp_path / "a", labels=tmp_path / "labels")
    gone = next((tmp_path / "labels").rglob("*.npz"))
    gone.unlink()
    (folder,) = (tmp_path / "labels").iterdir()
    config = defaults(teacher)
    config["data"]["scores"] = str(folder)
    with pytest.raises(DataError, match=gone.name.partition("-")[0]):
        train(config, quiet=True, out=str(tmp_path / "b"), **TINY, **SHORT)
    config["data"]["scores"] = None
    with pytest.raises(DataError, match=r"data\.scores"):
        train(config, quiet=True, out=str(tmp_path / "c"), **TINY, **SHORT)


def test_a_model_without_a_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="not a run folder"):
        defaults(tmp_path)


def test_resuming_equals_one_training(teacher, tmp_path):
    student(teacher, tmp_path / "whole", labels=tmp_path / "labels")
    student(teacher, tmp_path / "parts", labels=tmp_path / "labels", **{"train.stop_at": 2})
    student(teacher, tmp_path / "parts", labels=tmp_path / "labels", resume=True)
    first, second = (
        torch.load(tmp_path / name / "last.pt", weights_only=True)["modules"]["method"] for name in ("whole", "parts")
    )
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert np.isfinite([value.sum().item() for value in first.values()]).all()


@pytest.mark.parametrize("threshold", ["conformal:0.9", "calibrated", "adaptive"])
def test_a_threshold_that_needs_the_network_in_training_is_refused_for_stored_predictions(teacher, tmp_path, threshold):
    with pytest.raises(ConfigError, match=rf"loss\.threshold: found '{threshold}'"):
        student(teacher, tmp_path / "run", loss="fuzzy", **{"loss.threshold": threshold})


def test_the_slash_of_a_shells_completion_is_no_part_of_a_name(teacher, tmp_path):
    assert student(teacher, f"{tmp_path}/run/").finished
    assert (tmp_path / "run.labels").is_dir()


def test_a_method_that_reads_no_predictions_is_refused(teacher, tmp_path):
    with pytest.raises(ConfigError, match=r"method\.name: found 'cps'"):
        student(teacher, tmp_path / "run", method="cps")


def test_a_flipped_byte_is_found(teacher, tmp_path):
    student(teacher, tmp_path / "run", labels=tmp_path / "labels")
    path = next((tmp_path / "labels").rglob("*.npz"))
    content = path.read_bytes()
    for place in range(60, len(content) - 60, 7):
        path.write_bytes(content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :])
        with contextlib.suppress(DataError):
            read_scores(Item(Path(), None, "a", scores=path))
