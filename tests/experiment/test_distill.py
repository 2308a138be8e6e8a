"""From a teacher's run to a student: stored predictions, inherited data, errors, resuming."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from fuzzyseg.config import ConfigError
from fuzzyseg.data import DataError, Item
from fuzzyseg.data.io.scores import read_scores
from fuzzyseg.experiment import train
from fuzzyseg.experiment.distill import defaults, distill
from fuzzyseg.inference import load
from fuzzyseg.inference.model_card import CARD_NAME
from support.tiny_data import settings, write_folder

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
    labels = tmp_path / "run.labels"
    stored = sorted(path.relative_to(labels).with_suffix("").as_posix() for path in labels.rglob("*.npz"))
    assert stored == sorted(split["unlabelled"])
    predictor = load(teacher)
    for name in stored[:3]:
        found = read_scores(Item(Path(), None, name, scores=labels / f"{name}.npz")).softmax(0)
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


def test_predictions_of_another_teacher_are_refused(teacher, tmp_path):
    student(teacher, tmp_path / "a", labels=tmp_path / "labels")
    other = tmp_path / "other"
    shutil.copytree(teacher, other)
    card = other / "model" / CARD_NAME
    card.write_text(json.dumps(json.loads(card.read_text()) | {"temperature": 3.0}))
    with pytest.raises(DataError, match="other model"):
        student(other, tmp_path / "b", labels=tmp_path / "labels")


def test_missing_predictions_are_named(teacher, tmp_path):
    student(teacher, tmp_path / "a", labels=tmp_path / "labels")
    gone = next((tmp_path / "labels").rglob("*.npz"))
    gone.unlink()
    config = defaults(teacher)
    config["data"]["scores"] = str(tmp_path / "labels")
    with pytest.raises(DataError, match=gone.stem):
        train(config, quiet=True, out=str(tmp_path / "b"), **TINY, **SHORT)
    config["data"]["scores"] = None
    with pytest.raises(DataError, match=r"data\.scores"):
        train(config, quiet=True, out=str(tmp_path / "c"), **TINY, **SHORT)


def test_a_model_without_a_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no run folder"):
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
