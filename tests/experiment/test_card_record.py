"""What a finished run leaves in its model: the temperature, and a README with data, scores and declared licences."""

import json
import shutil
from functools import partial

import pytest

import fuzzyseg
from fuzzyseg.experiment import evaluate, load_run
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


CONFORMAL = {"name": "fuzzy", "threshold": "conformal:0.5", "calibrated": {"hold_back": 0.5}}


@pytest.mark.parametrize("loss", [{"name": "hard"}, CONFORMAL])
def test_no_temperature_is_judged_on_the_images_that_it_was_fitted_on(tmp_path, monkeypatch, loss):
    """Wherever these images are, in whatever split, and without their run."""
    own, data = partial(TinyNetwork, classes=3), write_folder(tmp_path / "data", val=0)
    train = {"steps": 2, "eval_every": 2}
    fuzzyseg.train(
        settings(data, tmp_path / "run", train=train, method={"name": "fixmatch"}, loss=loss), network=own, quiet=True
    )
    model = shutil.copytree(tmp_path / "run" / "model", tmp_path / "model")
    copy = shutil.copytree(data, tmp_path / "copy")
    given, real = [], load_run.judged
    monkeypatch.setattr(load_run, "judged", lambda pixels, t, *rest: given.append(t) or real(pixels, t, *rest))
    for source in (model, tmp_path / "run"):
        result = evaluate(source, data=copy, network=own, device="cpu")
        assert result["split"] == "all" and "cross-fitted" in result["calibration"]["fitted_on"]
    split = json.loads((tmp_path / "run" / "split.json").read_text())
    for name in split["held_back"] or split["val"]:
        (copy / "images" / f"{name}.png").unlink()
        (copy / "masks" / f"{name}.png").unlink()
    evaluate(model, data=copy, network=own, device="cpu")
    assert given == [None, None, fuzzyseg.load(model, network=own).card.temperature]
