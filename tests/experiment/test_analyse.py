"""`analyse` end to end on small data: what is measured, what is read, what is written, what is refused."""

from __future__ import annotations

import importlib
import json
import shutil
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

import fuzzyseg
from experiment.test_own_data import write_bands
from fuzzyseg.analysis.diagnosis import diagnose
from fuzzyseg.analysis.pixels import pixel_maps
from fuzzyseg.config import ConfigError
from fuzzyseg.data import DataError, Reader, read_dataset
from fuzzyseg.data.io.mask import read_mask
from fuzzyseg.experiment import analyse
from fuzzyseg.experiment.analyse import regime
from fuzzyseg.experiment.analyse.measure import striped
from fuzzyseg.experiment.analyse.text import answer
from fuzzyseg.inference import Predictor
from support.tiny_data import settings, write_folder
from support.tiny_network import TinyNetwork

own = partial(TinyNetwork, classes=3)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A CPS run of 20 steps on a small folder, with maps of K."""
    root = tmp_path_factory.mktemp("analysing")
    data = write_folder(root / "data")
    config = settings(data, root / "run", train={"k_maps": 2}, loss={"name": "fuzzy", "threshold": 0.7})
    return fuzzyseg.train(config, network=own, quiet=True).run


@pytest.fixture
def run(trained, tmp_path):
    """A copy that a test may change; its data is a copy too."""
    for name in ("run", "data"):
        shutil.copytree(trained.parent / name, tmp_path / name)
    file = tmp_path / "run" / "config.yaml"
    file.write_text(file.read_text().replace(str(trained.parent), str(tmp_path)))
    return tmp_path / "run"


def networks(run):
    """The two networks of last.pt."""
    state = torch.load(run / "last.pt", weights_only=True)["modules"]["method"]
    pair = []
    for name in ("first", "second"):
        network = own()
        network.load_state_dict({k.removeprefix(f"{name}."): v for k, v in state.items() if k.startswith(f"{name}.")})
        pair.append(network.eval())
    return pair


def test_a_run_is_measured_with_its_student_and_its_teacher(run):
    result = analyse(run, network=own, device="cpu")
    assert result["teacher"] != result["student"] and result["threshold"] == 0.7
    assert set(result["groups"]) == {"val", "labelled"}
    record = json.loads((run / "split.json").read_text())
    student, teacher = networks(run)
    dataset = read_dataset(run.parent / "data")
    items = {item.name: item for item in [*dataset.train, *dataset.val]}
    reader = Reader(3, 3, 255)
    for name, group in result["groups"].items():
        total = None
        for each in record[name]:
            image, mask = reader.read(items[each], with_mask=True)
            card = fuzzyseg.load(run, network=own).card
            t, s = (Predictor(network, card).training_logits(image)[None] for network in (teacher, student))
            counts = diagnose(pixel_maps(t, s, mask[None], threshold=0.7), mask[None])
            total = counts if total is None else total.plus(counts)
        expected = total.numbers()
        assert group["images"] == len(record[name])
        assert group["cases"] == expected["cases"] and group["by_k"] == expected["by_k"]
        assert group["coverage"] == expected["coverage"] and group["ece"] == expected["ece"]
        assert {row["truth"] for row in group["confusions"]} <= {"low", "middle", "high"}
        row = next(row for row in group["table"] if row["threshold"] == 0.75)
        assert row["top1"] == pytest.approx(expected["top1"])
    assert result["over_time"]["k"]["steps"] == [1, 5, 10, 15, 20]
    assert [each["step"] for each in result["over_time"]["evaluations"]] == [10, 20]


def test_another_threshold_can_be_asked_for(run):
    low, high = (analyse(run, network=own, threshold=t)["groups"]["val"]["mean_k"] for t in (0.4, 0.95))
    assert low < high


def test_masks_of_unlabelled_images_are_read_only_when_asked_for_and_it_is_said(run):
    record = json.loads((run / "split.json").read_text())
    masks = [run.parent / "data" / "masks" / f"{name}.png" for name in record["unlabelled"]]
    hidden = [mask for mask in masks if mask.exists()]
    assert hidden
    result = analyse(run, network=own, unlabelled_masks=True)
    assert result["groups"]["unlabelled"]["images"] == len(hidden)
    assert any("UNUSED MASKS" in note for note in result["notes"])
    for mask in hidden:
        mask.write_bytes(b"not an image")
    result = analyse(run, network=own)
    assert "unlabelled" not in result["groups"] and result["notes"] == []
    with pytest.raises(DataError):
        analyse(run, network=own, unlabelled_masks=True)


@pytest.mark.slow
def test_tables_and_figures_are_written(run):
    seen = []
    result = analyse(run, network=own, out=run / "analysis", images=2, progress=lambda *done: seen.append(done))
    folder = run / "analysis"
    assert seen[-1] == (9, 9)
    stored = json.loads((folder / "analysis.json").read_text())
    assert stored["groups"]["val"]["coverage"] == result["groups"]["val"]["coverage"]
    text = (folder / "analysis.md").read_text()
    assert "| case 2: label wrong, truth in the set |" in text and result["answer"][0] in text
    names = {"fuzzy_sets.png", "score_maps.png", "scores.png", "k_over_time.png", "weights.png", "k_maps.png",
             "training.png", "entropy.png", "coverage.png", "confusions.png", "calibration.png"}  # fmt: skip
    assert set(result["figures"]) == names == {path.name for path in folder.glob("*.png")}
    assert all(f"]({name})" in text for name in names)


def test_maps_of_k_are_kept_at_every_evaluation(trained):
    """At the last one they are what the evaluated network gives now."""
    assert [folder.name for folder in sorted((trained / "maps").iterdir())] == ["000010", "000020"]
    files = sorted((trained / "maps" / "000020").iterdir())
    assert [file.name for file in files] == ["00000.png", "00002.png"]  # two of three, evenly
    record = json.loads((trained / "split.json").read_text())
    items = {item.name: item for item in read_dataset(trained.parent / "data").val}
    image, mask = Reader(3, 3, 255).read(items[record["val"][2]], with_mask=True)
    logits = fuzzyseg.load(trained, network=own).training_logits(image)[None]
    k = pixel_maps(logits, logits, mask[None], threshold=0.7).k[0]
    assert torch.equal(torch.tensor(read_mask(files[1])).long(), k)


def test_evaluations_log_what_fpl_sees(trained):
    line = json.loads((trained / "metrics.jsonl").read_text().splitlines()[-1])["evaluation"]["fuzzy"]
    assert set(line) == {"coverage", "top1", "k_histogram", "ece", "cases", "labelled"}
    assert sum(case["share"] for case in line["cases"].values()) == pytest.approx(1)
    assert line["cases"]["1"]["share"] == pytest.approx(line["top1"])
    assert line["cases"]["1"]["score"]["hard"] == pytest.approx(1)
    assert line["labelled"]["coverage"] != line["coverage"]


def test_a_model_alone_is_its_own_teacher(run, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(run / "model", model)
    with pytest.raises(ConfigError, match="--data DIR"):
        analyse(model, network=own)
    result = analyse(model, data=run.parent / "data", network=own)
    assert set(result["groups"]) == {"val"} and result["threshold"] == 0.9
    assert result["teacher"] == result["student"]
    assert any("student = teacher" in note for note in result["notes"])


def test_a_run_without_its_checkpoint_says_so(run):
    for path in run.glob("last*.pt"):
        path.unlink()
    result = analyse(run, network=own)
    assert any("student = teacher" in note for note in result["notes"])
    assert result["groups"]["val"]["images"] == 3


def test_data_without_a_val_folder_is_looked_at_whole_and_it_is_said(run, tmp_path):
    other = write_folder(tmp_path / "other", images=5, masks=4, val=0)
    result = analyse(run / "model", data=other, network=own, limit=3)
    assert result["groups"]["train"]["images"] == 3
    assert any("no val folder" in note for note in result["notes"])
    assert any("3 of 4 images" in note for note in result["notes"])


def test_another_loss_and_what_cannot_be_are_said(run, tmp_path):
    config = settings(run.parent / "data", tmp_path / "hard", loss={"name": "hard"}, train={"steps": 1})
    hard = fuzzyseg.train(config, network=own, quiet=True).run
    assert any("loss hard" in note for note in analyse(hard, network=own)["notes"])
    for options, message in (
        ({"threshold": 1.5}, "--threshold"),
        ({"pictures": "gif"}, "--pictures"),
        ({"limit": 0}, "--limit: found 0; expected at least 1"),
        ({"images": -1}, "--images: found -1; expected at least 0"),
        ({"images": -1}, "--images"),
    ):
        with pytest.raises(ConfigError, match=message):
            analyse(run, network=own, **options)
    other = write_folder(tmp_path / "other", images=5, masks=4)
    with pytest.raises(ConfigError, match="--unlabelled-masks"):
        analyse(run, network=own, data=other, unlabelled_masks=True)


def row(threshold, coverage, top1, several, torn):
    return {
        "threshold": threshold, "coverage": coverage, "top1": top1, "rescued": (coverage - top1) / (1 - top1),
        "k_histogram": [1 - several, several, 0.0], "mean_k": 1 + several, "torn": torn,
    }  # fmt: skip


def test_a_network_that_has_hardly_learnt_is_told_to_be_trained_first():
    rows = [row(t, 0.6, 0.4, 0.8, 0.02) for t in (0.5, 0.85, 0.9, 0.95)]
    text = " ".join(answer(rows, classes=3, images="the images"))
    assert "right at less than half of the pixels" in text


def test_the_answer_takes_the_smallest_usual_threshold_that_covers_enough():
    rows = [
        row(0.5, 0.96, 0.9, 0.0, 0.0),
        *(row(t, c, 0.9, 0.1, 0.02) for t, c in ((0.85, 0.94), (0.9, 0.953), (0.95, 0.97))),
    ]
    text = " ".join(answer(rows, classes=3, images="the images"))
    assert "start with T = 0.9 (the smallest" in text and "at another 5.3 %" in text
    assert "rule=continuous" not in text
    poor = [row(t, 0.8, 0.7, 0.1, 0.3) for t in (0.85, 0.9, 0.95)]
    text = " ".join(answer(poor, classes=3, images="the images"))
    assert "T = 0.95 (none of" in text and "rule=continuous" in text
    assert "rule=continuous" not in " ".join(answer(poor, classes=3, images="the images", rule="n"))
    assert answer(poor, classes=3, images="the images", rule=2) == ["The rule is a fixed K = 2: T has no effect."]
    assert answer(poor, classes=2, images="the images")[0].startswith("FPL does not help: with two classes")


def cells(*points):
    return [{regime.FEATURE: share, "gain": gain, "pairs": pairs} for share, gain, pairs in points]


def test_the_verdict_claims_a_gain_only_where_the_interval_excludes_zero():
    rising = cells(*((x / 10, 4 * (x / 10 - 0.5) + (-1) ** x * 0.1, 1) for x in range(11)))
    assert [regime.verdict(x, rising).word for x in (0.05, 0.5, 0.95)] == ["does not help", "cannot tell", "helps"]
    noisy = cells(*((x / 10, 4 * (x / 10 - 0.5) + (-1) ** x * 9, 1) for x in range(11)))
    assert {regime.verdict(x, noisy).word for x in (0.05, 0.5, 0.95)} == {"cannot tell"}


def test_cells_count_by_their_pairs_and_the_verdict_does_not_extrapolate():
    many = cells(*((x / 20, -1.0, 50) for x in range(8)), (0.1, 2.0, 1), (0.3, 2.0, 1))
    assert regime.verdict(0.2, many).word == "does not help"
    assert regime.verdict(0.2, [cell | {"pairs": 1} for cell in many]).word == "cannot tell"
    assert (
        regime.verdict(0.45, many).word == "cannot tell" and "do not cover this value" in regime.verdict(0.45, many)[1]
    )
    assert regime.verdict(0.2, []).word == "cannot tell"


def test_a_constant_share_among_the_cells_is_no_line():
    """All runs at one share: the interval there is that of their weighted mean."""
    assert regime.verdict(0.2, cells(*((0.2, gain, 1) for gain in (1.0, 1.1, 0.9, 1.0)))).word == "helps"


def test_stripes_hold_the_classes_of_the_set_alone_and_all_of_them():
    order = torch.tensor([[[2, 0]], [[1, 2]], [[0, 1]]]).numpy()  # (C,1,2)
    drawn = striped(order, torch.tensor([[2, 1]]).numpy(), wide=240)
    assert drawn.shape == (120, 240)
    assert set(drawn[:, :120].ravel()) == {1, 2} and set(drawn[:, 120:].ravel()) == {0}


def test_bands_and_levels_are_those_of_the_training(tmp_path):
    """Of images that are not plain RGB the same numbers come out as the training logged of the same weights."""
    root = write_bands(tmp_path / "data", dtype=np.float32)
    data = {"root": str(root), "labelled": "6", "bands": [5, 2, 1]}
    run = tmp_path / "run"
    fuzzyseg.train(settings(root, run, data=data, train={"k_maps": 1}), network=own, quiet=True)
    logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    expected = [line["evaluation"]["fuzzy"] for line in logged if line.get("evaluation")][-1]
    result = analyse(run / "model", out=tmp_path / "out", images=1, network=own, device="cpu")
    for name in ("coverage", "top1", "ece", "k_histogram"):
        assert result["groups"]["val"][name] == pytest.approx(expected[name], abs=1e-6)
    assert "k_maps.png" in result["figures"]
    two = tmp_path / "two"
    chosen = settings(root, two, data={**data, "bands": [5, 2]}, network={"weights": "none", "channels": 2})
    network = partial(TinyNetwork, classes=3, channels=2)
    fuzzyseg.train(chosen, network=network, quiet=True)
    assert "fuzzy_sets.png" in analyse(two, out=tmp_path / "out2", images=1, network=network, device="cpu")["figures"]


def test_a_model_alone_is_measured_with_the_threshold_that_its_run_came_to(tmp_path):
    root, run = write_folder(tmp_path / "data"), tmp_path / "run"
    fuzzyseg.train(settings(root, run, loss={"name": "fuzzy", "threshold": "auto"}), network=own, quiet=True)
    assert analyse(run, network=own, device="cpu")["threshold"] == 0.85  # 6 of 16 images
    assert analyse(run / "model", network=own, device="cpu")["threshold"] == 0.85


def test_an_output_that_cannot_be_written_is_told_before_the_work(run, tmp_path, monkeypatch):
    module = importlib.import_module("fuzzyseg.experiment.analyse")
    monkeypatch.setattr(module, "read_inputs", lambda *_: pytest.fail("worked already"))
    (tmp_path / "taken").write_text("")
    with pytest.raises(DataError, match="taken: cannot be written"):
        analyse(run, out=tmp_path / "taken", network=own)


def test_masks_that_are_void_everywhere_are_an_error_that_names_one(run):
    for path in (run.parent / "data" / "masks" / "val").iterdir():
        Image.fromarray(np.full((24, 32), 255, np.uint8)).save(path)
    with pytest.raises(DataError, match=r"masks/val/im16\.png: is void everywhere, as are all 3 masks of the val"):
        analyse(run, network=own, device="cpu")


def test_an_adaptive_threshold_without_its_checkpoint_is_said(tmp_path):
    data = write_folder(tmp_path / "data")
    loss = {"name": "fuzzy", "threshold": "adaptive"}
    run = fuzzyseg.train(settings(data, tmp_path / "run", train={"steps": 1}, loss=loss), network=own, quiet=True).run
    said = "T of each pixel, as in training, needs the run's last.pt"
    assert not any(said in note for note in analyse(run, network=own, device="cpu")["notes"])
    assert any(said in note for note in analyse(run / "model", network=own, device="cpu")["notes"])
