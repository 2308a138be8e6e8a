"""Models of the hub, against a server on the loopback that speaks the part of its protocol that is used."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from fuzzyseg.data import DataError
from fuzzyseg.inference import load, save_model
from fuzzyseg.inference.hub import is_hub_name, upload
from fuzzyseg.networks import build_network
from support.small_images import card, noise
from support.stub_hub import served


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with served(tmp_path, monkeypatch) as handler:
        yield handler


@pytest.fixture
def model(tmp_path) -> Path:
    torch.manual_seed(0)
    save_model(tmp_path / "run" / "model", build_network("FPN", "mobilenet_v2", weights="none", channels=3, classes=3),
               card=card(arch="FPN", encoder="mobilenet_v2", temperature=1.5))  # fmt: skip
    (tmp_path / "run" / "model" / "notes.txt").write_text("private")
    return tmp_path / "run"


def test_what_was_pushed_is_what_is_loaded(hub, model):
    assert upload(model, "anna/streets", private=True).endswith("anna/streets")
    assert set(hub.files) == {"fuzzyseg.json", "README.md", "config.json", "model.safetensors",
                              "model.safetensors.sha256"}  # fmt: skip
    loaded = load("anna/streets")
    assert loaded.card == load(model).card and loaded.card.temperature == 1.5
    image = noise(33, 44)
    assert torch.equal(loaded.logits(image), load(model).logits(image))


def test_a_model_that_is_not_there_is_named(hub):
    with pytest.raises(DataError, match=r"anna/other: no such path, and no such model at http"):
        load("anna/other")


def test_offline_the_error_names_the_alternative(hub, model, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # the discard port: nothing listens
    calls = {lambda: load("anna/streets"): "copy the model folder", lambda: upload(model, "anna/streets"): "upload the"}
    for call, advice in calls.items():
        with pytest.raises(DataError, match=rf"^anna/streets: .*cannot be reached; {advice}") as error:
            call()
        assert "\n" not in str(error.value)
    assert hub.asked == []


def test_a_path_is_never_looked_up(hub, tmp_path):
    (tmp_path / "runs").mkdir()
    for source in ("runs/mistyped", "nothing", "./a/b", "/a/b", "a/b/c", "../x/y"):
        assert not is_hub_name(source)
        with pytest.raises(DataError, match="no such file or folder"):
            load(source)
    assert is_hub_name("anna/streets") and hub.asked == []


def test_only_a_model_is_pushed_and_only_under_a_name(hub, model, tmp_path):
    with pytest.raises(DataError, match=r"found no fuzzyseg\.json"):
        upload(tmp_path, "anna/streets")
    with pytest.raises(DataError, match="expected USER/NAME"):
        upload(model, "streets")
    assert hub.asked == []
