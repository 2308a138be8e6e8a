"""Every way to a threshold, in a training: what it resolves to, what is held back, that resuming changes nothing."""

from __future__ import annotations

import json
from functools import partial

import pytest
import torch

import fuzzyseg
from fuzzyseg.config import ConfigError, validate
from fuzzyseg.experiment.prepare_data import build_reader
from fuzzyseg.experiment.threshold_policy import auto_threshold, threshold_of
from fuzzyseg.losses import PIXEL_LOSSES, Adaptive, Calibrated, Conformal, PixelLossModule, Schedule
from fuzzyseg.methods import Facts
from fuzzyseg.ops.resize import resize_logits
from support.fuzzy_coverage import fuzzy_coverage
from support.tiny_data import material_of, settings, write_folder
from support.tiny_network import TinyNetwork

own = partial(TinyNetwork, classes=3)


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "data")


def lines(path):
    rows = [json.loads(row) for row in (path / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        row.pop("time")
    return rows


def test_auto_is_table_5():
    """Cityscapes has 2975 training images: 1/32, 1/16 and 1/8 of them are 93, 186 and 372."""
    for labelled, threshold in ((93, 0.95), (186, 0.9), (372, 0.9), (744, 0.85)):
        for by in ("share", "count"):
            assert auto_threshold(labelled, 2975, by) == threshold
    # 11 of CamVid's 367; 1/16 of VOC with SBD, where the two disagree; few labels of few images
    assert [auto_threshold(11, 367, by) for by in ("share", "count")] == [0.95, 0.95]
    assert [auto_threshold(662, 10582, by) for by in ("share", "count")] == [0.9, 0.85]
    assert [auto_threshold(20, 40, by) for by in ("share", "count")] == [0.85, 0.95]
    ladder = [auto_threshold(n, 1000, "share") for n in range(1, 1001)]
    assert ladder == sorted(ladder, reverse=True)


def test_settings_become_policies():
    facts = Facts(3, images={"labelled": 11, "all": 367})

    def policy(**loss):
        return threshold_of(validate({"loss": loss}).loss, facts)

    assert policy(threshold=0.75) == 0.75
    assert policy(threshold="auto") == 0.95
    assert policy(threshold="schedule", schedule={"start": 0.9, "share": 0.5}) == Schedule(0.9, 0.85, 0.5)
    assert policy(threshold="adaptive", adaptive={"candidates": [0.8, 0.9], "window": 3}) == Adaptive((0.8, 0.9), 3)
    assert policy(threshold="calibrated") == Calibrated(0.9)
    assert policy(threshold="conformal:0.8") == Conformal(0.9)
    assert policy(threshold="conformal:0.8", conformal={"per_class": True}) == Conformal(0.9, 3)
    with pytest.raises(ConfigError, match=r"loss.adaptive.window: found 4, expected an odd number"):
        policy(threshold="adaptive", adaptive={"window": 4})
    with pytest.raises(ConfigError, match=r"loss.threshold: found 'schedule' with loss.rule=2; a fixed K uses no T"):
        policy(threshold="schedule", rule=2)


@pytest.mark.parametrize("rule", ["n-1", "continuous"])
@pytest.mark.parametrize("policy", ["auto", "schedule", "adaptive", "calibrated"])
def test_trains_under_every_policy_and_says_what_it_was(folder, tmp_path, policy, rule, capsys):
    loss = {"name": "fuzzy", "threshold": policy, "rule": rule}
    fuzzyseg.train(settings(folder, tmp_path / "run", loss=loss), network=own)
    said, result = capsys.readouterr().out, json.loads((tmp_path / "run" / "result.json").read_text())
    rows, threshold = lines(tmp_path / "run"), result["threshold"]
    assert f"threshold {policy}" in said
    assert threshold["policy"] == policy
    assert json.loads((tmp_path / "run" / "split.json").read_text())["threshold"]["policy"] == policy
    fuzzy = result["last"]["fuzzy"]
    assert fuzzy["coverage"] >= fuzzy["top1"]
    assert sum(rows[-1]["metrics"]["k_histogram"]) == pytest.approx(1)
    if policy == "auto":
        assert threshold == {"policy": "auto", "by": "share", "value": 0.85}  # 6 of 16
        assert "T = 0.85, by the share of labels (6 of 16 training images); by the count it would be 0.95" in said
    elif policy == "schedule":
        assert [row["metrics"]["threshold"] for row in rows] == pytest.approx([0.95, 0.93, 0.905, 0.88, 0.855])
    elif policy == "adaptive":
        assert len(rows[-1]["metrics"]["threshold_histogram"]) == 3
        assert "value" not in threshold
    else:
        assert result["labelled"] == 6
        assert result["held_back"] == 1
        assert 0.5 <= threshold["value"] <= 0.99


def test_calibration_holds_images_back_and_covers_their_truth(folder, tmp_path):
    """T is measured on the labelled images that are not trained on, with the weights of that step."""
    seen = []

    class Watched(TinyNetwork):
        def forward(self, image):
            seen.append((tuple(image.shape), self.training, torch.is_grad_enabled()))
            return super().forward(image)

    calibrated = {"coverage": 0.8, "hold_back": 0.34, "every": 7}
    config = settings(
        folder, tmp_path / "run", loss={"name": "fuzzy", "threshold": "calibrated", "calibrated": calibrated},
        train={"evaluate": False, "log_every": 1},
    )  # fmt: skip
    plain = settings(folder, tmp_path / "plain", train={"steps": 1, "evaluate": False})
    fuzzyseg.train(plain, network=own, quiet=True)
    fuzzyseg.train(config, network=partial(Watched, classes=3), quiet=True)
    split, before = (json.loads((tmp_path / name / "split.json").read_text()) for name in ("run", "plain"))
    assert split["held_back"] == before["labelled"][-2:]
    assert split["labelled"] == before["labelled"][:-2]
    assert set(split["unlabelled"]) == {*before["unlabelled"], *split["held_back"]}
    assert split["val"] == before["val"]
    assert split["hash"] != before["hash"]
    whole = [each for each in seen if each[0] == (1, 3, 24, 32)]  # the crops are smaller
    assert whole == [((1, 3, 24, 32), False, False)] * (2 * 2)  # at 7 and 14, two images each
    values = [row["metrics"]["threshold"] for row in lines(tmp_path / "run")]
    assert values[:7] == pytest.approx([0.9] * 7)
    assert len(set(values[7:14])) == len(set(values[14:])) == 1
    assert values[7] != pytest.approx(0.9)


def test_calibration_reaches_the_wanted_coverage(folder, tmp_path):
    """Calibrated before the last step; with a learning rate of 0 the weights are those of the end."""
    calibrated = {"coverage": 0.7, "hold_back": 0.5, "every": 2}
    config = settings(
        folder, tmp_path / "run", loss={"name": "fuzzy", "threshold": "calibrated", "calibrated": calibrated},
        train={"steps": 3, "evaluate": False, "freeze_batch_norm": True}, optim={"lr": 1e-12},
    )  # fmt: skip
    result = fuzzyseg.train(config, network=own, quiet=True).result
    model = fuzzyseg.load(tmp_path / "run", network=own)
    ready = validate(config)
    material = material_of(ready)
    reader, counts = build_reader(ready.data, material.card), []
    held = json.loads((tmp_path / "run" / "split.json").read_text())["held_back"]
    assert len(held) == 3
    value = result["threshold"]["value"]
    for threshold in (value, value - 0.005):
        total = None
        for item in material.split.labelled:
            if item.name in held:
                image, mask = reader.read(item, with_mask=True)
                found = fuzzy_coverage(model.training_logits(image)[None], mask[None], threshold=threshold)
                total = found if total is None else total.plus(found)
        counts.append(total.shares()["coverage"])
    assert counts[0] >= 0.7
    assert counts[1] < 0.7 or value == 0.5


@pytest.mark.parametrize("policy", ["schedule", "adaptive"])
def test_coverage_is_measured_at_the_threshold_of_the_loss(folder, tmp_path, policy):
    """Not at the .9 of the default; per pixel under A-FPL, whose choice is made at the network's stride."""
    loss = {"name": "fuzzy", "threshold": policy, "schedule": {"start": 0.5, "end": 0.4},
            "adaptive": {"candidates": [0.4, 0.7, 0.99], "window": 3}}  # fmt: skip
    result = fuzzyseg.train(settings(folder, tmp_path / "run", loss=loss), network=own, quiet=True).result
    model, ready = fuzzyseg.load(tmp_path / "run", network=own), validate(settings(folder, tmp_path / "run"))
    material = material_of(ready)
    reader, found = build_reader(ready.data, material.card), {}
    for item in material.split.val:
        image, mask = reader.read(item, with_mask=True)
        logits = model.training_logits(image)[None]
        cells = resize_logits(logits, (12, 16))
        adaptive = PixelLossModule(PIXEL_LOSSES["fuzzy"], {}, Adaptive((0.4, 0.7, 0.99), 3))
        for name, threshold in (
            ("default", 0.9),
            ("schedule", Schedule(0.5, 0.4).at(19, 20)),
            ("adaptive", adaptive.thresholds(cells, (24, 32))),
        ):
            counts = fuzzy_coverage(logits, mask[None], threshold=threshold)
            found[name] = counts if name not in found else found[name].plus(counts)
    shares = {key: result["last"]["fuzzy"][key] for key in found[policy].shares()}
    assert shares == found[policy].shares()
    assert shares != found["default"].shares()


@pytest.mark.parametrize("policy", ["schedule", "calibrated", "adaptive", "conformal:0.7"])
def test_resuming_changes_nothing(folder, tmp_path, policy):
    loss = {"name": "fuzzy", "threshold": policy, "rule": "continuous", "calibrated": {"every": 5},
            "conformal": {"per_class": True}}  # fmt: skip
    train = {"eval_every": 5, "save_every": 4}
    states, rows = [], []
    for name, stops in (("straight", [None]), ("parts", [8, 10, None])):
        for stop in stops:
            config = settings(folder, tmp_path / name, loss=loss, train={**train, "stop_at": stop})
            fuzzyseg.train(config, network=own, quiet=True, resume=True)
        states.append(torch.load(tmp_path / name / "last.pt", weights_only=True)["modules"]["method"])
        rows.append(lines(tmp_path / name))
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert rows[0] == rows[1]


def test_what_cannot_be_calibrated_is_said(folder, tmp_path):
    def refused(message, **changes):
        loss = {"name": "fuzzy", "threshold": "calibrated", "calibrated": changes.pop("calibrated", {})}
        with pytest.raises(ConfigError, match=message):
            fuzzyseg.train(settings(folder, tmp_path / "run", loss=loss, **changes), network=own, quiet=True)
        assert not (tmp_path / "run").exists()

    refused(r"'calibrated' with 1 labelled image\(s\), 1 of them to be held back", data={"labelled": "1"})
    refused(r"found 0 \(only at the start\), but the network starts untrained; give --init", calibrated={"every": 0})
    refused("low 0.9, high 0.8; expected low < high", calibrated={"low": 0.9, "high": 0.8})


def test_a_loss_without_threshold_holds_nothing_back(folder, tmp_path, capsys):
    loss = {"name": "hard", "threshold": "calibrated"}
    result = fuzzyseg.train(
        settings(folder, tmp_path / "run", loss=loss, train={"steps": 2, "evaluate": False}), network=own
    ).result
    assert result["threshold"] is None
    assert result["held_back"] == 0
    assert "loss.threshold has no effect" in capsys.readouterr().out
