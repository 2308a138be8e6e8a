"""A training from a folder to a run folder: what is written, that resuming changes nothing, what is refused."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

import fuzzyseg
from fuzzyseg.config import ConfigError, read_yaml, validate
from fuzzyseg.config.load import nested
from fuzzyseg.data import DataError
from fuzzyseg.data.splits import validation
from fuzzyseg.engine import NonFiniteLoss
from fuzzyseg.engine.checkpoint import save
from fuzzyseg.experiment import evaluate, results
from fuzzyseg.experiment.validation import Scoring
from fuzzyseg.ops.resize import resize_logits
from fuzzyseg.run import RunFolder, RunFolderError
from fuzzyseg.run import folder as run_folder
from support.tiny_data import settings, write_folder
from support.tiny_network import TinyNetwork

own = partial(TinyNetwork, classes=3, dropout=0.3)


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "data")


def run(config, **options):
    return fuzzyseg.train(config, network=options.pop("network", own), quiet=True, **options)


def lines(path):
    rows = [json.loads(row) for row in (path / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        row.pop("time")
    return rows


def same(a, b, place=""):
    """Equal bit for bit, NaN equal to NaN."""
    assert type(a) is type(b), place
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype and torch.equal(torch.nan_to_num(a), torch.nan_to_num(b)), place
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), place
        for key in a:
            same(a[key], b[key], f"{place}/{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), place
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            same(x, y, f"{place}/{i}")
    else:
        assert a == b, place


def test_ceilings_are_measured_once_a_run(folder, tmp_path, monkeypatch):
    """From the masks at the size of the files, and the stride of the network's logits."""
    room, calls = importlib.import_module("fuzzyseg.inference.evaluate"), []
    measure = room.ceiling_matrix
    monkeypatch.setattr(
        room, "ceiling_matrix", lambda *args, **kwargs: calls.append(kwargs) or measure(*args, **kwargs)
    )
    path = run(settings(folder, tmp_path / "run")).run
    first, second = (row["evaluation"] for row in lines(path) if "evaluation" in row)
    assert len(calls) == 1
    assert first["ceiling"] == second["ceiling"] == json.loads((path / "result.json").read_text())["last"]["ceiling"]
    kept = [first["per_class"][name] for name, value in first["ceiling"].items() if value >= first["ceiling_least"]]
    assert first["miou_resolvable"] == pytest.approx(np.mean(kept))


def test_run_folder_holds_all_it_should(folder, tmp_path):
    result = run(settings(folder, tmp_path / "run"))
    assert result.finished and not result.interrupted and result.step == 20
    path = result.run
    assert {"config.yaml", "split.json", "environment.json", "metrics.jsonl", "last.pt", "model", "result.json"} <= {
        p.name for p in path.iterdir()
    }
    assert [row["step"] for row in lines(path)] == [1, 5, 10, 15, 20]
    stored = json.loads((path / "result.json").read_text())
    assert stored["last"]["step"] == 20
    assert set(stored["last"]["per_class"]) == {"low", "middle", "high"}
    assert 0 <= stored["last"]["miou"] <= 1
    assert stored["seed"] == 3 and stored["steps"] == 20 and stored["protocol"]
    split = json.loads((path / "split.json").read_text())
    assert len(split["labelled"]) == 6 and len(split["unlabelled"]) == 10 and len(split["val"]) == 3
    assert split["hash"] == stored["split"]
    assert sum(lines(path)[-1]["metrics"]["k_histogram"]) == pytest.approx(1)
    fuzzy = lines(path)[-1]["evaluation"]["fuzzy"]
    assert fuzzy["coverage"] >= fuzzy["top1"]


def test_fewer_than_ten_labelled_images_choose_no_best_checkpoint(tmp_path):
    root = write_folder(tmp_path / "data", val=0)
    few = run(settings(root, tmp_path / "few"))
    assert not (few.run / "best").exists() and few.result["best"] is None


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_resuming_changes_nothing(folder, tmp_path, precision):
    train = {"accumulate": 2, "workers": 2, "eval_every": 5, "save_every": 4, "ema": 0.9, "precision": precision}
    straight = run(settings(folder, tmp_path / "straight", train=train))
    config = settings(folder, tmp_path / "parts", train={**train, "stop_at": 10})
    stopped = run(config)
    assert not stopped.finished and stopped.step == 10 and stopped.result is None
    with (stopped.run / "metrics.jsonl").open("a") as log:  # lines past the checkpoint, as a crash leaves them
        log.write('{"step": 15, "loss": 1}\n{"step": 1')
    config["train"].pop("stop_at")
    resumed = run({**config, "train": {**config["train"], "workers": 0}}, resume=True)
    assert resumed.finished
    a, b = (torch.load(r.run / "last.pt", weights_only=True) for r in (straight, resumed))
    a.pop("config"), b.pop("config")
    same(a, b)
    same(lines(straight.run), lines(resumed.run))
    same(straight.result, resumed.result)


def test_a_damaged_checkpoint_is_replaced_by_the_one_before(folder, tmp_path, caplog):
    train = {"steps": 8, "save_every": 2, "evaluate": False}
    straight = run(settings(folder, tmp_path / "straight", train=train))
    config = settings(folder, tmp_path / "parts", train={**train, "stop_at": 6})
    path = run(config).run / "last.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    config["train"].pop("stop_at")
    resumed = run(config, resume=True)
    assert "last-1.pt, step 4" in caplog.text
    assert resumed.finished
    a, b = (torch.load(r.run / "last.pt", weights_only=True) for r in (straight, resumed))
    same(a["modules"], b["modules"])
    same(lines(straight.run), lines(resumed.run))


@pytest.mark.parametrize("resume", [False, True])
def test_a_second_training_in_the_folder_is_refused(folder, tmp_path, resume, monkeypatch):
    monkeypatch.setattr(run_folder, "LOCK_TIMEOUT", 0.1)
    config = settings(folder, tmp_path / "run", train={"stop_at": 2, "evaluate": False})
    with (
        RunFolder(tmp_path / "run").lock(),
        pytest.raises(RunFolderError, match="another training"),
    ):
        run(config, resume=resume)
    assert not (tmp_path / "run" / "config.yaml").exists()
    assert run(config, resume=resume).step == 2  # the lock is released


def test_only_a_restart_of_the_same_job_resumes_without_being_told(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    out = tmp_path / "run"
    out.mkdir()
    (out / "thesis.part").write_text("a user's file")
    config = settings(folder, out, train={"steps": 4, "stop_at": 2, "evaluate": False})
    with pytest.raises(RunFolderError, match="not empty"):  # as in the first attempt
        run(config)
    assert [path.name for path in out.iterdir()] == ["thesis.part"]
    (out / "thesis.part").unlink()
    assert run(config).step == 2
    monkeypatch.setattr(os, "getppid", lambda: 1)  # a later job
    with pytest.raises(RunFolderError, match="not empty"):
        run(config)
    monkeypatch.undo()
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    config["train"]["stop_at"] = None
    assert run(config).step == 4


def test_resuming_with_another_setting_names_key_and_both_values(folder, tmp_path):
    config = settings(folder, tmp_path / "run", train={"stop_at": 2, "evaluate": False})
    run(config)
    config["optim"]["lr"] = 0.07
    with pytest.raises(ValueError, match=r"optim\.lr.*0\.05.*0\.07") as error:
        run(config, resume=True)
    assert f"fuzzyseg train {tmp_path / 'run' / 'config.yaml'} --out {tmp_path / 'run'} --resume" in str(error.value)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda state, split: state["streams"].update(labelled=torch.zeros(2)), "does not fit this method"),
        (lambda state, split: split.pop("hash"), "have changed since the run started"),
        (lambda state, split: split.pop("input"), "has no input statistics"),
    ],
)
def test_damaged_records_of_a_run_are_explained_when_it_is_resumed(folder, tmp_path, spoil, words):
    config = settings(folder, tmp_path / "run", train={"stop_at": 2, "evaluate": False})
    run(config)
    checkpoint, file = tmp_path / "run" / "last.pt", tmp_path / "run" / "split.json"
    state, split = torch.load(checkpoint, weights_only=True), json.loads(file.read_text())
    spoil(state, split)
    save(checkpoint, state)
    file.write_text(json.dumps(split))
    with pytest.raises(ValueError, match=words):
        run(config, resume=True)


def test_resuming_with_other_images_is_an_error(folder, tmp_path):
    config = settings(folder, tmp_path / "run", train={"stop_at": 2, "evaluate": False})
    run(config)
    (folder / "images" / "train" / "im15.png").unlink()
    with pytest.raises(ConfigError, match="have changed since the run started"):
        run(config, resume=True)


def test_a_resumed_run_keeps_its_held_out_images_if_another_version_would_hold_out_others(tmp_path, monkeypatch):
    config = settings(write_folder(tmp_path / "data", val=0), tmp_path / "run", train={"stop_at": 2, "steps": 4})
    monkeypatch.setattr(validation, "shuffled", lambda items, seed, purpose: range(len(items)))
    held = json.loads((run(config).run / "split.json").read_text())["val"]
    monkeypatch.undo()
    config["train"].pop("stop_at")
    assert run(config, resume=True).finished
    assert json.loads((tmp_path / "run" / "split.json").read_text())["val"] == held
    assert json.loads((run({**config, "out": str(tmp_path / "new")}).run / "split.json").read_text())["val"] != held


def test_a_run_folder_in_use_is_refused(folder, tmp_path):
    config = settings(folder, tmp_path / "run", train={"steps": 2, "evaluate": False})
    run(config)
    with pytest.raises(ValueError, match="--resume"):
        run(config)


def test_masks_of_unlabelled_images_are_not_read_in_training(folder, tmp_path):
    config = settings(folder, tmp_path / "run", train={"steps": 3, "evaluate": False}, data={"policy": "random"})
    run(config)
    record = json.loads((tmp_path / "run" / "split.json").read_text())
    for name in record["unlabelled"]:
        mask = folder / "masks" / f"{name}.png"
        if mask.exists():
            mask.write_bytes(b"not an image")
    config["out"] = str(tmp_path / "again")
    assert run(config).finished


def test_two_learners_want_two_files(folder, tmp_path):
    config = settings(folder, tmp_path / "run", init=["one.safetensors"])
    with pytest.raises(ConfigError, match=r"found 1 file.*2 network"):
        run(config, network=None)


def test_settings_that_do_not_exist_name_the_nearest(folder, tmp_path):
    with pytest.raises(ConfigError, match=r"method\.cutmixx.*'method.cutmix'"):
        run(settings(folder, tmp_path / "a", method={"cutmixx": True}))
    with pytest.raises(ConfigError, match="'fuzzy'"):
        run(settings(folder, tmp_path / "b", loss={"name": "fuzy"}))
    with pytest.raises(ConfigError, match="does not apply"):
        run(settings(folder, tmp_path / "c", method={"name": "supervised"}))
    with pytest.raises(ConfigError, match="'supervised'"):
        run(settings(folder, tmp_path / "d", method={"name": "superwised"}))


def test_without_unlabelled_images_cps_says_what_to_do(tmp_path):
    root = write_folder(tmp_path / "data", images=8, masks=8)
    with pytest.raises(ConfigError, match="unlabelled"):
        run(settings(root, tmp_path / "run", data={"labelled": None}))


def test_two_classes_with_the_fuzzy_loss_are_said_once(folder, tmp_path, capsys):
    (folder / "dataset.yaml").write_text("classes: [low, high]\nignore_index: 2\n")
    config = settings(folder, tmp_path / "run", train={"steps": 2, "evaluate": False})
    fuzzyseg.train(config, network=partial(TinyNetwork, classes=2))
    assert capsys.readouterr().out.count("weighted cross entropy") == 1


def test_training_leaves_the_callers_random_numbers_alone(folder, tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run(settings(folder, tmp_path / "run", train={"steps": 2, "evaluate": False}))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.slow
def test_a_trained_model_loads_elsewhere_and_starts_another_run(folder, tmp_path):
    import segmentation_models_pytorch as smp

    small = {
        "arch": "Unet",
        "encoder": "mobilenet_v2",
        "weights": "none",
        "decoder_channels": [16, 16, 8, 8, 8],
    }
    train = {"steps": 2, "crop": [32, 32]}
    runs = []
    for seed in (0, 1):
        config = settings(folder, tmp_path / f"start{seed}", network=small, train=train, loss={"name": "paper"})
        runs.append(run({**config, "method": {"name": "supervised"}, "seed": seed}, network=None).run)
    model = smp.from_pretrained(str(runs[0] / "model")).eval()
    ours = fuzzyseg.load(runs[0]).network.eval()
    image = torch.randn(1, 3, 32, 64)
    assert model(image).shape == (1, 3, 32, 64)
    assert torch.equal(
        model.state_dict()["encoder.features.0.0.weight"], ours.encoder.state_dict()["features.0.0.weight"]
    )
    config = settings(folder, tmp_path / "next", network=small, train=train, init=[str(r) for r in runs])
    assert run(config, network=None).finished
    config["init"] = [str(runs[0]), str(runs[0])]
    config["out"] = str(tmp_path / "equal")
    with pytest.raises(ValueError, match="different seeds"):
        run(config, network=None)


def test_a_nan_at_a_pixel_that_does_not_count_stops_the_training(folder, tmp_path):
    """It is in no loss, but in the gradient."""

    class Broken(TinyNetwork):
        def forward(self, image):
            logits = resize_logits(super().forward(image), image.shape[-2:])
            spot = torch.zeros_like(logits)
            if self.training:
                spot[:, :, 0, 0] = torch.nan  # the masks begin with two rows of void
            return torch.where(spot.isnan(), logits * spot, logits)

    config = settings(
        folder, tmp_path / "run", method={"name": "supervised"}, loss={"name": "paper"},
        augment={"scale": [1.0, 1.0], "flip": 0.0}, train={"crop": [24, 32]},
    )  # fmt: skip
    with pytest.raises(NonFiniteLoss, match=r"step 1: .*gradient"):
        run(config, network=partial(Broken, classes=3))


def test_loss_settings_without_effect_are_named(folder, tmp_path, capsys):
    config = settings(folder, tmp_path / "run", train={"steps": 1, "evaluate": False})
    given = {"balance": True, "threshold": 0.5, "confidence": 0.8}
    for name, idle in (
        ("paper", "loss.threshold, loss.balance, loss.confidence"),
        ("soft", "loss.threshold, loss.balance, loss.confidence"),
        ("hard", "loss.confidence"),  # the scale of balance is that of the fuzzy loss, with its threshold
        ("fuzzy", "loss.confidence"),
        ("thresholded", "loss.threshold, loss.balance"),
    ):
        config["loss"], config["out"] = {"name": name, **given}, str(tmp_path / name)
        fuzzyseg.train(config, network=own)
        has = "have" if "," in idle else "has"
        assert f"note: {idle} {has} no effect" in capsys.readouterr().out


def test_an_output_that_cannot_be_written_is_told_before_the_data_is_read(folder, tmp_path, monkeypatch):
    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("fuzzyseg.data.io.write.TemporaryFile", refuse)
    module = importlib.import_module("fuzzyseg.experiment.prepare_training")
    monkeypatch.setattr(module, "gather_material", lambda *_: pytest.fail("worked already"))
    with pytest.raises(DataError, match=r"out: cannot be written \(Permission denied"):
        run(settings(folder, tmp_path / "out"))


def test_what_cannot_run_leaves_no_folder(folder, tmp_path):
    small = {"arch": "FPN", "encoder": "mobilenet_v2", "weights": "none"}
    config = settings(folder, tmp_path / "run", network=small, train={"steps": 1, "crop": [33, 32]})
    with pytest.raises(ConfigError, match=r"--crop: found 33x32; .* multiples of 32"):
        run(config, network=None)
    with pytest.raises(ConfigError, match=r"loss\.rule: found K = 7"):
        run(settings(folder, tmp_path / "run", loss={"rule": 7}))
    assert not (tmp_path / "run").exists()


def test_one_image_for_batch_norm_of_pooled_features_says_what_to_set(folder, tmp_path):
    class Pooled(TinyNetwork):
        def forward(self, image):
            self.norm = getattr(self, "norm", None) or torch.nn.BatchNorm2d(3, affine=False)
            logits = super().forward(image)
            return logits + self.norm(logits.mean((2, 3), keepdim=True)) if self.training else logits

    config = settings(folder, tmp_path / "run", train={"batch": 1})
    with pytest.raises(ConfigError, match="raise --batch"):
        run(config, network=partial(Pooled, classes=3))


def test_a_resumed_run_needs_no_other_files_and_records_what_it_is(folder, tmp_path, capsys):
    starts = []
    for seed in (0, 1):
        config = settings(folder, tmp_path / f"start{seed}", train={"steps": 1, "evaluate": False}, seed=seed)
        starts.append(run({**config, "method": {"name": "supervised"}, "loss": {"name": "paper"}}).run)
    config = settings(folder, tmp_path / "run", train={"stop_at": 2, "evaluate": False}, init=[str(s) for s in starts])
    run(config)
    for start in starts:
        shutil.rmtree(start)
    config["train"] = {**config["train"], "stop_at": None, "steps": 6}
    capsys.readouterr()
    assert fuzzyseg.train(config, network=own, resume=True).step == 6
    assert "resuming at step 2; --steps was 20" in capsys.readouterr().out
    assert read_yaml(tmp_path / "run" / "config.yaml")["train"]["steps"] == 6
    assert len(json.loads((tmp_path / "run" / "environment.json").read_text())["earlier"]) == 1


def test_paths_are_stored_whole(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder.parent)
    run({**settings(folder, tmp_path / "run", train={"steps": 1, "evaluate": False}), "data": {"root": folder.name}})
    assert read_yaml(tmp_path / "run" / "config.yaml")["data"]["root"] == str(folder)
    monkeypatch.chdir(tmp_path / "run")
    assert evaluate(tmp_path / "run", network=own)["images"] == 3


def test_other_data_is_scored_with_its_own_ignore_index_and_the_models_classes(folder, tmp_path):
    run(settings(folder, tmp_path / "run", train={"steps": 1, "evaluate": False}))
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    for path in other.glob("masks/*/*.png"):
        mask = np.asarray(Image.open(path)).copy()
        mask[mask == 255] = 9
        Image.fromarray(mask).save(path)
    (other / "dataset.yaml").write_text("ignore_index: 9\n")
    score = evaluate(tmp_path / "run", data=other, network=own)
    assert score["pixels"] == evaluate(tmp_path / "run", network=own)["pixels"]
    (other / "dataset.yaml").write_text("ignore_index: 9\nclasses: [high, middle, low]\n")
    with pytest.raises(ConfigError, match=r"high, middle, low.*low, middle, high"):
        evaluate(tmp_path / "run", data=other, network=own)


@pytest.fixture
def asked(monkeypatch):
    """The configurations that trainings were begun with, none of which runs."""
    begun = []
    module = importlib.import_module("fuzzyseg.experiment.train")
    monkeypatch.setattr(module, "_train", lambda config, *rest: begun.append(config))
    return begun


def test_keywords_and_dotted_keys_say_the_same_as_sections(asked, tmp_path):
    out = tmp_path / "run"
    given = {"crop": 64, "steps": 7, "labelled": 5, "weights": "none", "arch": "Unet", "encoder": "resnet18"}
    fuzzyseg.train(data=tmp_path, method="fixmatch", loss="fuzzy", out=out, optim={"lr": 0.5}, **given)
    dotted = {"train.crop": "64x64", "train": {"steps": 7}, "data.labelled": "5", "network.weights": "none",
              "network": {"arch": "Unet", "encoder": "resnet18"}, "optim.lr": 0.5, "method.name": "fixmatch",
              "loss.name": "fuzzy", "data.root": str(tmp_path), "out": str(out)}  # fmt: skip
    fuzzyseg.train(dotted)
    fuzzyseg.train({**dotted, "train.crop": 32}, crop=64)  # a keyword overrides
    fuzzyseg.train(validate(nested({**dotted, "optim.lr": 9.0})), **{"optim": {"lr": 0.5}})
    assert asked[0].method.name == "fixmatch" and asked[0].train.crop == (64, 64) and asked[0].optim.lr == 0.5
    assert all(config == asked[0] for config in asked[1:])


def test_what_is_handed_in_is_not_changed(asked, tmp_path):
    config = validate({"out": str(tmp_path / "run"), "data": {"root": "photos"}})
    before = config.model_copy(deep=True)
    fuzzyseg.train(config, network=own, steps=3)
    assert config == before


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"stepz": 3}, "'stepz'. Did you mean 'steps'"),
        ({"method": "cpss"}, "Did you mean 'cps'"),
        ({"loss": "fuzy"}, "Did you mean 'fuzzy'"),
        ({"encoder": "resnet5"}, "Did you mean 'resnet50'"),
        ({"encoder": "tu-resnet5"}, "timm has no model 'resnet5'"),
        ({"encoder": "tu-hf-hub:a/b"}, "timm has no model"),
        ({"arch": "Unett"}, "Did you mean 'Unet'"),
        ({"seed": 2**63}, "seed: found 9223372036854775808"),
        ({"data.split_seed": -1}, "data.split_seed: found -1"),
        ({"device": "meta"}, "found 'meta'"),
        ({"optim": {"warmup": 2000}}, "optim.warmup: found 2000 steps for a run of 2000"),
        ({"method.unsupervised_weight": float("inf")}, "unsupervised_weight: found inf"),
        ({"method.cutmix": "often"}, "method.cutmix: found 'often'"),
    ],
)
def test_bad_names_and_values_are_found_before_any_file_is_looked_for(tmp_path, given, words):
    files = {"data": "no_such_folder", "weights": "no_such_file", "out": str(tmp_path / "run")}
    with pytest.raises(ValueError, match=re.escape(words)):
        fuzzyseg.train({key: value for key, value in given.items() if "." in key}, quiet=True,
                       **files, **{key: value for key, value in given.items() if "." not in key})  # fmt: skip
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("at", [10, 20])
def test_a_failed_evaluation_is_made_up_for_by_resuming(folder, tmp_path, monkeypatch, at):
    straight, failed = (settings(folder, tmp_path / name) for name in ("straight", "failed"))
    whole = run(straight)
    with monkeypatch.context() as patched:
        score = Scoring.evaluate

        def fails(self, predictor, step):
            if step == at:
                raise OSError("no memory left")
            return score(self, predictor, step)

        patched.setattr(Scoring, "evaluate", fails)
        with pytest.raises(OSError, match="no memory left"):
            run(failed)
    assert torch.load(tmp_path / "failed" / "last.pt", weights_only=True)["step"] == at
    rest = run(failed, resume=True)
    assert rest.result == whole.result
    assert lines(tmp_path / "failed") == lines(tmp_path / "straight")


@pytest.mark.parametrize("key", ["rule", "k_cap"])
def test_more_positive_classes_than_there_are_is_an_error(folder, tmp_path, key):
    config = settings(folder, tmp_path / "run", loss={"name": "fuzzy", key: 3})
    with pytest.raises(ConfigError, match=f"loss.{key}: found K = 3 for 3 classes"):
        run(config)


def test_a_damaged_record_of_sessions_does_not_stop_a_resumed_run(tmp_path):
    run = RunFolder(tmp_path)
    run.environment.write_text('{"python": "3.11", "earlier": 5}')
    assert results.sessions(run, {"python": "3.12"}, {"step": 1}) == {"python": "3.12", "earlier": [{"python": "3.11"}]}
