"""What held-back labels decide in a training: temperature and conformal T, and a reliability gate."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

import fuzzyseg
from fuzzyseg.analysis.temperature import fitted_temperature
from fuzzyseg.analysis.threshold import conformal_threshold, coverage_by_threshold
from fuzzyseg.config import ConfigError, validate
from fuzzyseg.data import Item
from fuzzyseg.experiment import validation
from fuzzyseg.experiment.analyse import analyse
from fuzzyseg.experiment.calibration import by_image, check_images, fourths
from fuzzyseg.experiment.prepare_data import build_reader
from fuzzyseg.experiment.validation import pixels_of_groups
from support.fuzzy_coverage import fuzzy_coverage
from support.tiny_data import material_of, settings, write_folder
from support.tiny_network import TinyNetwork

own = partial(TinyNetwork, classes=3)
STILL = {"train": {"steps": 3, "freeze_batch_norm": True, "eval_every": 0, "log_every": 1}, "optim": {"lr": 1e-12}}
"""With a learning rate of 0 the weights that were calibrated with are those of the end."""


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "data")


def pairs(run, config, names):
    """Logits (1,C,H,W) of the finished model, and masks (1,H,W), of these images in this order."""
    model, ready = fuzzyseg.load(run, network=own), validate(config)
    material = material_of(ready)
    reader = build_reader(ready.data, material.card)
    items = {item.name: item for item in [*material.split.labelled, *material.split.val]}
    for name in names:
        image, mask = reader.read(items[name], with_mask=True)
        yield model.training_logits(image)[None], mask[None]


def logged(run, name):
    rows = [json.loads(row) for row in (run / "metrics.jsonl").read_text().splitlines()]
    return [row["metrics"][name] for row in rows if name in row.get("metrics", {})]


@pytest.mark.parametrize("per_class", [False, True])
@pytest.mark.parametrize("unit", ["pixel", "image"])
def test_temperature_and_threshold_are_those_of_the_images_held_back(folder, tmp_path, unit, per_class):
    """Every fourth of these gives the temperature, the others T; val is scored with both."""
    loss = {"name": "fuzzy", "threshold": "conformal:0.5", "calibrated": {"hold_back": 0.7, "every": 2},
            "conformal": {"unit": unit, "per_class": per_class}}  # fmt: skip
    method = {"name": "fixmatch"}  # its own teacher, which analyse looks at
    config = settings(folder, tmp_path / "run", loss=loss, data={"labelled": "12"}, method=method, **STILL)
    result = fuzzyseg.train(config, network=own, quiet=True).result
    split = json.loads((tmp_path / "run" / "split.json").read_text())
    held = split["held_back"]
    assert len(held) == 8
    z, y = zip(*pairs(tmp_path / "run", config, held[::4]), strict=True)
    z, y = torch.cat(z), torch.cat(y)
    temperature = fitted_temperature(z.movedim(1, -1)[y != 255], y[y != 255])
    record = result["threshold"]
    assert record["temperature"] == pytest.approx(temperature, rel=1e-4)
    assert abs(temperature - 1) > 0.01
    grid = torch.linspace(0.5, 0.99, 99, dtype=torch.float64).tolist()
    rows, units = torch.zeros(4, 99, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
    for logits, mask in pairs(tmp_path / "run", config, [name for n, name in enumerate(held) if n % 4]):
        for row in range(4):  # all, then by most probable class
            target = mask if row == 0 else torch.where(logits.argmax(1) == row - 1, mask, 255)
            covered, pixels = coverage_by_threshold(logits / temperature, target, grid)
            if pixels.sum():
                rows[row] += covered.sum(0) / (pixels.sum() if unit == "image" else 1)
                units[row] += 1 if unit == "image" else pixels.sum()
    expected = [conformal_threshold(rows[r], units[r], grid, 0.5)[0] if units[r] else None for r in range(4)]
    assert grid[0] < expected[0] < grid[-1]
    expected = [expected[0] if value is None else value for value in expected]
    assert record["value"] == pytest.approx(expected[1:] if per_class else expected[0], abs=1e-6)
    total = None
    for logits, mask in pairs(tmp_path / "run", config, split["val"]):
        t = torch.tensor(record["value"])
        counts = fuzzy_coverage(logits / record["temperature"], mask, threshold=t[logits.argmax(1)] if per_class else t)
        total = counts if total is None else total.plus(counts)
    assert result["last"]["fuzzy"]["coverage"] == pytest.approx(total.shares()["coverage"])
    assert logged(tmp_path / "run", "temperature") == pytest.approx([1, 1, temperature], rel=1e-4)
    shown = analyse(tmp_path / "run", network=own, device="cpu")
    assert shown["groups"]["val"]["coverage"] == pytest.approx(total.shares()["coverage"])
    assert any("divided by a temperature" in note for note in shown["notes"])
    assert ("by its most probable class" in shown["threshold_text"]) == per_class


@pytest.mark.parametrize("confidence", [0.2, 0.9999])
def test_a_gate_follows_the_truth_that_was_held_back(folder, tmp_path, confidence, capsys):
    """Nobody is .9999 confident, so all teach; at .2 everybody is, and more than a fifth are right."""
    method = {"name": "fixmatch", "confidence": "gate", "threshold": confidence, "cutmix_probability": 0}
    config = settings(folder, tmp_path / "run", method=method, loss={"calibrated": {"every": 2}}, **STILL)
    result = fuzzyseg.train(config, network=own).result
    said = capsys.readouterr().out
    assert result["held_back"] == 1
    assert result["labelled"] == 6
    held = json.loads((tmp_path / "run" / "split.json").read_text())["held_back"]
    above = right = 0
    for logits, mask in pairs(tmp_path / "run", config, held):
        p, label = logits.softmax(1).max(1)
        sure = (p >= confidence) & (mask != 255)
        above, right = above + int(sure.sum()), right + int((sure & (label == mask)).sum())
    reliable = above > 0 and right / above >= confidence
    assert reliable == (confidence == 0.2)
    assert logged(tmp_path / "run", "reliable") == [1, 1, float(reliable)]
    state = torch.load(tmp_path / "run" / "last.pt", weights_only=True)["modules"]["method"]
    assert bool(state["confident.reliable"]) == reliable
    assert ("all pixels are used" in said) == (not reliable)
    shown = analyse(tmp_path / "run", network=own, device="cpu")
    (row,) = [row for row in shown["groups"]["val"]["confident"] if row["confidence"] == confidence]
    logits, mask = (torch.cat(side) for side in zip(*pairs(tmp_path / "run", config, json.loads(
        (tmp_path / "run" / "split.json").read_text())["val"]), strict=True))  # fmt: skip
    p, label = logits.softmax(1).max(1)
    seen, sure = mask != 255, p >= confidence
    assert row["share"] == pytest.approx(float(sure[seen].float().mean()))
    if sure[seen].any():
        assert row["right"] == pytest.approx(float((label == mask)[seen & sure].float().mean()))


@pytest.mark.parametrize("name", ["fixmatch", "unimatch", "unimatch_v2"])
def test_a_gated_run_resumes_bit_for_bit(folder, tmp_path, name):
    states = []
    for out, stops in (("straight", [None]), ("parts", [5, None])):
        for stop in stops:
            config = settings(
                folder, tmp_path / out, method={"name": name, "confidence": "gate", "threshold": 0.6},
                loss={"threshold": "conformal:0.8", "calibrated": {"every": 3}},
                train={"steps": 8, "stop_at": stop, "evaluate": False},
            )  # fmt: skip
            fuzzyseg.train(config, network=own, quiet=True, resume=True)
        states.append(torch.load(tmp_path / out / "last.pt", weights_only=True)["modules"]["method"])
    assert {"confident.reliable", "pixel_loss.temperature"} <= states[0].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_a_run_holds_back_whole_groups(folder, tmp_path):
    loss = {"name": "fuzzy", "threshold": "conformal:0.5", "calibrated": {"hold_back": 0.1}}
    data = {"labelled": "12", "group": r"im\d(\d)"}
    config = settings(folder, tmp_path / "run", loss=loss, data=data, method={"name": "fixmatch"}, **STILL)
    fuzzyseg.train(config, network=own, quiet=True)
    split = json.loads((tmp_path / "run" / "split.json").read_text())
    held, kept = ({name[-1] for name in split[part]} for part in ("held_back", "labelled"))
    assert held and kept and not held & kept  # im00 and im10, im01 and im11 are of one group


def test_every_fourth_image_is_the_temperatures_and_a_single_one_serves_both():
    items = [Item(Path(f"{name}.png"), None, name) for name in "abcdef"]

    def names(parts):
        return ["".join(item.name for item in part) for part in parts]

    assert names(fourths(items)) == ["ae", "bcdf"]
    assert names(fourths(items[:1])) == ["a", "a"]
    assert names(fourths(items, "[abc]|[def]")) == ["ae", "bcdf"]  # six groups
    grouped = [replace(item, name=f"{item.name}{place}") for item in items for place in (1, 2)]
    assert names(fourths(grouped, "[a-f]")) == ["a1a2e1e2", "b1b2c1c2d1d2f1f2"]
    assert names(fourths(grouped[::2] + grouped[1::2], "[a-f]")) == ["a1a2e1e2", "b1b2c1c2d1d2f1f2"]
    assert names(fourths(grouped[:2], "[a-f]")) == ["a1", "a2"]  # one group


def test_no_group_is_both_fitted_on_and_judged(monkeypatch):
    pixels = torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2, dtype=torch.long)
    counted = []

    def pairs(predictor, reader, item):
        counted.append(item.name)
        yield pixels if item.name[0] != "v" else (pixels[0], torch.full((1, 2, 2), 255))

    items = [Item(Path(f"{name}.png"), None, name) for name in ["a1", "b1", "a2", "a3", "v1", "a4", "c1"]]
    monkeypatch.setattr(validation, "training_pairs", pairs)
    images, middle, used = pixels_of_groups(None, None, items, "[a-z]")
    assert counted == ["a1", "a2", "a3", "a4", "b1", "v1", "c1"]
    assert (len(images), middle, [path.stem for path in used]) == (6, 4, ["a1", "a2", "a3", "a4", "b1", "c1"])
    assert pixels_of_groups(None, None, items, None)[1] == 3
    assert pixels_of_groups(None, None, items[:1], "[a-z]")[1] == 0
    assert pixels_of_groups(None, None, [items[0], *items[2:4]], "[a-z]")[1] == 1  # one group: by image
    assert pixels_of_groups(None, None, items, "b")[1] == 3  # a name without a match is a group of its own


def test_an_image_is_one_unit_by_the_share_of_its_pixels():
    rows = torch.tensor([[3.0, 4.0, 8.0], [0.0, 0.0, 0.0]])
    assert torch.equal(by_image(rows), torch.tensor([[3 / 8, 0.5, 1.0], [0, 0, 0]]))


def test_too_few_images_for_a_coverage_by_image_are_an_error():
    check_images(9, 0.9)
    check_images(19, 0.95)
    with pytest.raises(ConfigError, match=r"found 'image' with 8 held-back image\(s\) for T; .* needs at least 9"):
        check_images(8, 0.9)


def test_a_gate_needs_labels_that_can_be_held_back(folder, tmp_path):
    config = settings(
        folder, tmp_path / "run", method={"name": "fixmatch", "confidence": "gate"}, data={"labelled": "1"}
    )
    with pytest.raises(ConfigError, match=r"method.confidence: found 'gate' with 1 labelled image\(s\), 1 of them"):
        fuzzyseg.train(config, network=own, quiet=True)


@pytest.mark.parametrize(
    "wrong", ["conformal:1.5", "conformal:1", "conformal:0", "conformal:", "conformal", "conformal:x"]
)
def test_a_coverage_that_cannot_be_is_named(wrong):
    with pytest.raises(ConfigError, match=rf"loss.threshold: found '{wrong}'; expected .*conformal:0.9"):
        validate({"loss": {"threshold": wrong}})


def test_the_coverage_stands_in_the_name():
    loss = validate({"loss": {"threshold": "conformal:0.85"}}).loss
    assert (loss.policy, loss.coverage) == ("conformal", 0.85)
    assert validate({"loss": {"threshold": "calibrated"}}).loss.coverage == 0.95
    assert validate({}).loss.policy == "number"


def test_a_run_calibrated_at_its_start_only_can_be_resumed(folder, tmp_path):
    """Its checkpoint has T and the weights, so that it needs neither the initial weights nor another calibration."""
    start = settings(folder, tmp_path / "start", method={"name": "supervised"}, loss={"name": "paper"},
                     train={"steps": 1, "evaluate": False})  # fmt: skip
    fuzzyseg.train(start, network=own, quiet=True)
    loss = {"name": "fuzzy", "threshold": "calibrated", "calibrated": {"every": 0, "hold_back": 0.5}}
    train = {"steps": 2, "stop_at": 1, "evaluate": False}
    config = settings(folder, tmp_path / "run", loss=loss, method={"name": "fixmatch"}, train=train)
    config["init"] = [str(tmp_path / "start" / "model")]
    fuzzyseg.train(config, network=own, quiet=True)
    before = torch.load(tmp_path / "run" / "last.pt", weights_only=True)["modules"]["method"]["pixel_loss.threshold"]
    config["train"]["stop_at"] = None
    result = fuzzyseg.train(config, network=own, quiet=True, resume=True).result
    assert result["threshold"]["value"] == pytest.approx(float(before))
    assert float(before) != pytest.approx(0.9)
