"""`predict` of a run: what the run's settings decide."""

import json

import numpy as np
import pytest

from fuzzyseg.config import dump_yaml, validate
from fuzzyseg.experiment import predict
from fuzzyseg.inference import load, save_model
from fuzzyseg.losses import assign_fuzzy_positives
from fuzzyseg.networks import build_network
from support.small_images import card, noise, write
from support.tiny_data import settings


@pytest.mark.parametrize(
    ("loss", "ended_with", "expected"),
    [
        ({"threshold": 0.6, "rule": "n"}, None, {"threshold": 0.6, "rule": "n"}),
        ({"threshold": "schedule", "k_cap": 1, "rule": "n"}, 0.83, {"threshold": 0.83, "k_cap": 1, "rule": "n"}),
    ],
)
def test_sets_are_those_of_the_run(tmp_path, loss, ended_with, expected):
    run = tmp_path / "run"
    network = build_network("FPN", "mobilenet_v2", weights="none", channels=3, classes=3)
    save_model(run / "model", network, card=card(arch="FPN", encoder="mobilenet_v2"))
    config = validate(settings(tmp_path, run, loss={"name": "fuzzy", **loss}))
    (run / "config.yaml").write_text(dump_yaml(config))
    (run / "split.json").write_text("{}")
    (run / "result.json").write_text(json.dumps({"threshold": {"value": ended_with}}))
    image = write(tmp_path / "a.png", noise(64, 64))
    predict(run, image, tmp_path / "out", write=["k", "sets"], device="cpu")
    sets = assign_fuzzy_positives(load(run).logits(image)[None], **expected)[0].numpy()
    with np.load(tmp_path / "out/sets/a.npz") as stored:
        assert np.array_equal(np.unpackbits(stored["sets"], axis=0, count=3), sets)
    assert not np.array_equal(sets, assign_fuzzy_positives(load(run).logits(image)[None])[0].numpy())
