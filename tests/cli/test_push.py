"""`fuzzyseg push`, against a stub of the hub: what arrives there, the message and the exit codes."""

from __future__ import annotations

import pytest
import torch
from huggingface_hub import constants
from typer.testing import CliRunner

from fuzzyseg.cli import app
from fuzzyseg.inference import load, save_model
from fuzzyseg.networks import build_network
from support.small_images import card, noise
from support.stub_hub import served


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with served(tmp_path, monkeypatch) as handler:
        yield handler


@pytest.fixture
def run(tmp_path):
    torch.manual_seed(0)
    network = build_network("FPN", "mobilenet_v2", weights="none", channels=3, classes=3)
    save_model(tmp_path / "run" / "model", network, card=card(arch="FPN", encoder="mobilenet_v2"))
    (tmp_path / "run" / "config.yaml").write_text("secret: 1\n")
    return tmp_path / "run"


def call(*words: object):
    return CliRunner().invoke(app, ["push", *map(str, words)])


@pytest.mark.parametrize("words", [(), ("--private",)])
def test_the_model_is_uploaded_and_its_address_is_printed(hub, run, words):
    result = call(run, "anna/streets", *words)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"uploaded to {constants.ENDPOINT}/anna/streets\n"
    assert (hub.created["name"], hub.created["organization"]) == ("streets", "anna")
    assert (hub.created.get("private") is True or hub.created.get("visibility") == "private") == bool(words)
    assert {"model.safetensors", "fuzzyseg.json", "README.md"} <= set(hub.files)
    assert not any("config.yaml" in name for name in hub.files)
    image = noise(33, 44)
    assert torch.equal(load("anna/streets").labels(image), load(run).labels(image))


def test_a_folder_without_a_model_and_a_name_without_a_user_are_refused(hub, run, tmp_path):
    for words, named in (((tmp_path, "anna/streets"), "found no fuzzyseg.json"), ((run, "streets"), "USER/NAME")):
        result = call(*words)
        assert result.exit_code == 2 and result.stdout == "" and named in result.stderr
    assert hub.asked == []


def test_a_hub_that_refuses_or_is_away_is_named(hub, run, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_of_another")
    refused = call(run, "anna/streets")
    assert refused.exit_code == 2 and "hf auth login" in refused.stderr, refused.stderr
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # the discard port: nothing listens
    away = call(run, "anna/streets")
    assert away.exit_code == 2 and "cannot be reached" in away.stderr
    assert hub.files == {}
