"""What a finished run leaves in its model: the temperature, and a README with data, scores and declared licences."""

from functools import partial

import pytest

import fuzzyseg
from fuzzyseg.experiment import evaluate
from support.tiny_data import settings, write_folder
from support.tiny_network import TinyNetwork


def test_the_temperature_of_the_end_is_stored_and_told(tmp_path):
    own, data = partial(TinyNetwork, classes=3), write_folder(tmp_path / "data")
    with (data / "dataset.yaml").open("a") as file:
        file.write("licence: CC BY 4.0\n")
    config = settings(data, tmp_path / "run", train={"steps": 4, "eval_every": 4})
    result = fuzzyseg.train(config, network=own, quiet=True).result["last"]["calibration"]
    model = fuzzyseg.load(tmp_path / "run", network=own)
    assert model.card.temperature == result["temperature"] != 1
    assert "cross-fitted" in result["fitted_on"]
    scored = evaluate(tmp_path / "run", network=own, device="cpu")["calibration"]
    assert scored["ece_calibrated"] == pytest.approx(result["ece_calibrated"], abs=1e-4)  # cross-fitted again
    text = (tmp_path / "run" / "model" / "README.md").read_text()
    assert "- data: CC BY 4.0 (declared)" in text and "- backbone: not declared" in text
    assert "6 labelled images" in text and f"{100 * result['ece']:.2f} % without it" in text
