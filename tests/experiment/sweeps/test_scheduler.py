"""A whole sweep on tiny images: starts, rows, a failure that is told, going on, and what is not run again."""

import errno
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import yaml
from typer.testing import CliRunner

from fuzzyseg.cli import app
from fuzzyseg.cli.errors import explained
from fuzzyseg.config import Config, ConfigError
from fuzzyseg.config.plan import Plan
from fuzzyseg.data import DataError
from fuzzyseg.experiment.prepare_data import read_configured
from fuzzyseg.experiment.sweeps import Cell, Grid, scheduler, sweep
from fuzzyseg.experiment.sweeps.checks import origin
from fuzzyseg.experiment.sweeps.rows import identity, same_runs
from fuzzyseg.experiment.sweeps.scheduler import _last_error
from fuzzyseg.run import RunFolder, RunFolderError, folder
from fuzzyseg.run.environment import code_version
from support.tiny_data import settings, write_folder

NETWORK = {"arch": "FPN", "encoder": "mobilenet_v2", "decoder_pyramid_channels": 32}


def plan():
    return {
        "title": "Tiny",
        "arms": {
            "hard": {"loss.name": "hard"},
            "plain": {"method.name": "supervised", "loss.name": "paper"},
            "broken": {"method.name": "supervised", "loss.name": "paper", "optim.lr": 1e30},
        },
        "labelled": [6],
        "pairs": [["hard", "plain"]],
        "start": {"train.steps": 1},
    }


def common(tmp_path, steps=3):
    values = settings(write_folder(tmp_path / "data"), tmp_path / "x", network=NETWORK)
    values["train"] |= {"steps": steps, "crop": [64, 64], "eval_every": 0, "log_every": 1}
    del values["out"], values["data"]["labelled"], values["seed"]
    return values


def test_a_second_sweep_in_the_folder_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "LOCK_TIMEOUT", 0.1)
    grid = Grid(Plan.model_validate(plan()), common(tmp_path))
    with RunFolder(tmp_path / "out").lock(), pytest.raises(RunFolderError, match="another training or sweep"):
        sweep(grid, tmp_path / "out", say=lambda text: None)
    assert not list((tmp_path / "out").glob("*.log"))


@pytest.mark.parametrize("name", ["plain", "table.md"])
def test_a_full_disk_says_what_stands_and_starts_nothing(tmp_path, monkeypatch, name):
    real, Popen = os.replace, subprocess.Popen

    def begun(arguments, **options):
        assert "fuzzyseg" not in arguments
        return Popen(arguments, **options)

    def full(source, target):
        if name in str(target):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "replace", full)
    monkeypatch.setattr(scheduler.subprocess, "Popen", begun)
    monkeypatch.setattr(scheduler._Scheduler, "run", scheduler._Scheduler.run if name == "plain" else lambda *_: False)
    grid = Grid(Plan(title="x", arms={"plain": plan()["arms"]["plain"]}), common(tmp_path))
    with pytest.raises(OSError, match=rf"{name}") as error:
        sweep(grid, tmp_path / "out", say=lambda text: None)
    message, code = explained(error.value, "sweep")
    assert code == 1
    assert "cannot be written (No space left on device)" in message
    assert f"finished results in {tmp_path / 'out' / 'rows'} are intact" in message
    assert "--resume" not in message
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.slow
def test_a_sweep_from_the_command_line_and_again(tmp_path):
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan()))
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(common(tmp_path)))
    words = ["sweep", str(tmp_path / "plan.yaml"), str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "out"),
             "--results", str(tmp_path / "rows"), "--jobs", "2"]  # fmt: skip
    first = CliRunner().invoke(app, words)
    assert first.exit_code == 1
    assert "1 of 3 runs failed" in first.stderr
    assert "- broken-6-s0: failed: error: " in first.stdout
    assert sorted(path.name for path in (tmp_path / "rows").iterdir()) == ["hard-6-s0.json", "plain-6-s0.json"]
    row = json.loads((tmp_path / "rows" / "hard-6-s0.json").read_text())
    assert row["result"]["steps"] == 3
    assert row["seconds_per_step"] > 0
    assert str(tmp_path) not in json.dumps(row)
    plain = json.loads((tmp_path / "rows" / "plain-6-s0.json").read_text())
    assert len(set(row["starts"])) == 2  # of two networks, each its own
    assert plain["starts"] == row["starts"][:1]
    assert (tmp_path / "out" / "table.md").read_text() in first.stdout
    # another machine: the runs are gone, the rows stand; nothing but the failed one is made again
    again = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "elsewhere"), "--arms", "hard,plain"])
    assert again.exit_code == 0
    assert not (tmp_path / "elsewhere" / "hard-6-s0").exists()
    # with other settings a row is not taken for what it is not
    changed = CliRunner().invoke(app, [*words, "--arms", "hard", "optim.lr=0.01"])
    assert changed.exit_code == 2
    assert "optim.lr was 0.05 and is now 0.01" in changed.stderr


@pytest.mark.slow
def test_an_interrupted_sweep_saves_and_goes_on(tmp_path):
    one = {"title": "One", "arms": {"plain": plan()["arms"]["plain"]}, "labelled": [6]}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(one))
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(common(tmp_path, steps=100_000)))
    command = [sys.executable, "-m", "fuzzyseg", "sweep", str(tmp_path / "plan.yaml"), str(tmp_path / "recipe.yaml"),
               "--out", str(tmp_path / "out")]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "out" / "plain-6-s0" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.is_file() and metrics.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "interrupted" in said
    assert (tmp_path / "out" / "plain-6-s0" / "last.pt").is_file()
    assert not list((tmp_path / "out" / "rows").iterdir())
    cut = json.loads(metrics.read_text().splitlines()[-1])["step"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while json.loads(metrics.read_text().splitlines()[-1])["step"] == cut and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    assert f"resuming at step {cut}" in (tmp_path / "out" / "plain-6-s0.log").read_text()


@pytest.mark.slow
def test_a_sweep_in_the_background_stops_its_runs_before_their_first_step_too(tmp_path):
    """A shell starts background jobs with SIGINT ignored, and children inherit that."""
    one = {"title": "One", "arms": {"plain": plan()["arms"]["plain"]}, "labelled": [6]}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(one))
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(common(tmp_path, steps=100_000)))
    words = ["sweep", str(tmp_path / "plan.yaml"), str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "out")]
    ignoring = "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); from fuzzyseg.cli import main; main()"
    process = subprocess.Popen([sys.executable, "-c", ignoring, *words], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (tmp_path / "out" / "plain-6-s0.log").is_file() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    try:
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "interrupted" in said


def test_a_folder_of_images_that_is_not_there_is_named_before_the_first_run(tmp_path):
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan()))
    words = ["sweep", str(tmp_path / "plan.yaml"), "--data", str(tmp_path / "no"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert f"--data: found {tmp_path / 'no'}, which does not exist" in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("labelled", "folds", "words"), [(None, 13, "found 13 for 12 labelled"), ("9", 2, "9 of 6")])
def test_images_that_cannot_be_split_are_one_error_before_the_first_run(tmp_path, labelled, folds, words):
    arms = {"plain": plan()["arms"]["plain"]}
    grid = Grid(Plan(title="x", arms=arms), common(tmp_path), labelled=[labelled] if labelled else [], folds=folds)
    with pytest.raises(DataError, match=words):
        sweep(grid, tmp_path / "out", say=lambda text: None)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "images", "unused"),
    [
        ({"data": {"val": "0.2"}}, 3, "not used: data.val=0.2, the 3 images of the val folder"),
        ({}, 3, "not used: the 3 images of the val folder"),
        ({}, 0, None),
    ],
)
def test_folds_say_which_validation_images_they_leave_out(tmp_path, given, images, unused):
    values = {"data": {"root": str(write_folder(tmp_path / "data", val=images))}}
    arms = {"plain": {"method.name": "supervised", **given}}
    said = []
    origin(Grid(Plan(title="x", arms=arms), values, folds=3), tmp_path / "out", said.append, any_code=True)
    assert [text.partition("; ")[2] for text in said] == ([] if unused is None else [unused])
    origin(Grid(Plan(title="x", arms=arms), values), tmp_path / "out", said.append, any_code=True)
    assert len(said) == (unused is not None)  # nothing is left out without folds


def test_a_start_that_fails_takes_its_arms_with_it_and_no_others(tmp_path):
    values = common(tmp_path)
    arms = {"plain": {"method.name": "supervised", "loss.name": "paper"}}
    grid = Grid(Plan.model_validate({"title": "x", "arms": arms, "start": {"optim.lr": 1e30}}), values)
    said = []
    done = sweep(grid, tmp_path / "out", say=said.append)
    assert done.rows == {}
    assert done.failed[Cell("plain", None, 0)] == "its supervised pretraining failed"
    assert any("start0-s0: failed" in line for line in said)


@pytest.mark.slow
def test_an_error_of_our_own_leaves_no_run_behind(tmp_path, monkeypatch):
    begun = []

    def start(*arguments, **options):
        begun.append(Popen(*arguments, **options))
        return begun[-1]

    def watch(now):
        raise RuntimeError("no space for the table")

    Popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", start)
    arms = {"plain": plan()["arms"]["plain"]}
    with pytest.raises(RuntimeError, match="no space"):
        sweep(Grid(Plan(title="x", arms=arms), common(tmp_path, steps=100_000)), tmp_path / "out", watch=watch)
    runs = [process for process in begun if "fuzzyseg" in process.args]
    assert [process.poll() is None for process in runs] == [False]


@pytest.mark.slow
def test_a_run_without_a_score_is_told_and_is_no_row(tmp_path):
    values = common(tmp_path, steps=1)
    values["data"]["val"] = "none"
    done = sweep(Grid(Plan(title="x", arms={"plain": plan()["arms"]["plain"]}), values), tmp_path / "out")
    assert "without a score" in done.failed[Cell("plain", None, 0)]
    assert not list((tmp_path / "out" / "rows").iterdir())


def test_a_failed_run_is_reported_by_its_own_last_error_not_by_an_earlier_attempts(tmp_path):
    log = tmp_path / "a.log"
    log.write_text("error: an old one\n")
    begun = log.stat().st_size
    with log.open("a") as file:
        file.write("step 1\nTraceback\n")
    assert _last_error(log, begun, 1).startswith("Traceback")
    assert _last_error(log, 0, 1).startswith("error: an old one")


@pytest.mark.parametrize(
    "text",
    ["{}", '{"settings": {}, "result": {"last": {"miou": null}, "labelled": 3}}',
     '{"settings": [1], "result": {"last": {"miou": 0.5}, "labelled": 3}}',
     '{"settings": {}, "result": {"last": {"miou": 0.5}}}'],
)  # fmt: skip
def test_a_file_that_is_no_row_is_named(tmp_path, text):
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "a-s0.json").write_text(text)
    with pytest.raises(ConfigError, match=r"a-s0\.json: is not a result of a sweep"):
        sweep(Grid(Plan(title="x", arms={"a": {}})), tmp_path, only_table=True)


def test_a_row_with_the_same_settings_counts_under_another_arms_name(tmp_path):
    arms = {"set with weight": {"loss.name": "fuzzy"}, "none": {"loss.name": "fuzzy", "loss.weight": "none"}}
    grid = Grid(Plan(title="one", arms={"concave": arms["set with weight"], "hard": {"loss.name": "hard"}}))
    for cell, miou in zip(grid.cells, (0.5, 0.25), strict=True):
        row = {"settings": identity(grid.config(cell, tmp_path)), "arm": cell.arm, "seed": 0,
               "result": {"last": {"miou": miou}, "labelled": 6}}  # fmt: skip
        (tmp_path / f"{cell.name}.json").write_text(json.dumps(row))
    (tmp_path / "notes.json").write_text("{}")  # not a row, nobody's cell: no matter
    other = Grid(Plan(title="two", arms=arms), seeds=2)
    done = sweep(other, tmp_path / "out", results=tmp_path, only_table=True)
    assert {cell.name: row["result"]["last"]["miou"] for cell, row in done.rows.items()} == {"set_with_weight-s0": 0.5}
    assert "| set with weight | all (6) | 1 | 50.00 |" in done.table


@pytest.mark.slow
def test_a_start_that_was_made_with_other_settings_is_not_gone_on_from(tmp_path):
    values = common(tmp_path, steps=1)
    arms = {"plain": {"method.name": "supervised", "loss.name": "paper"}}
    first = Grid(Plan(title="x", arms=arms, start={"train": {"steps": 1}}), values)
    sweep(first, tmp_path / "out", say=lambda text: None)
    (tmp_path / "out/rows/plain-s0.json").unlink()
    longer = Grid(Plan(title="x", arms=arms, start={"train": {"steps": 2}}), values)
    with pytest.raises(ConfigError, match=r"start0-s0: supervised pretraining .*train\.steps was 1 and is now 2"):
        sweep(longer, tmp_path / "out", say=lambda text: None)
    done = sweep(first, tmp_path / "out", say=lambda text: None)
    assert len(done.rows) == 1


def made_row(grid, cell, folder, **fields):
    row = {"settings": identity(grid.config(cell, folder)), "result": {"last": {"miou": 0.5}, "labelled": 6}, **fields}
    (folder / f"{cell.name}.json").write_text(json.dumps(row))


def test_a_row_of_another_data_set_or_of_other_code_is_refused(tmp_path):
    values, rows = common(tmp_path), tmp_path / "rows"
    rows.mkdir()
    arms = {"plain": {"method.name": "supervised", "loss.name": "paper"}}
    grid = Grid(Plan(title="x", arms=arms), values)
    (cell,) = grid.cells
    data = read_configured(grid.config(cell, tmp_path).data).fingerprint

    def done():
        return sweep(grid, tmp_path / "out", results=rows, say=lambda text: None).rows

    made_row(grid, cell, rows, data=data, code=code_version())
    assert list(done()) == [cell]
    made_row(grid, cell, rows, data="another", code=code_version())
    with pytest.raises(ConfigError, match=r"plain-s0\.json: .*data was another"):
        done()
    made_row(grid, cell, rows, data=data, code={"sources": "older", "commit": None})
    with pytest.raises(ConfigError, match=r"code was older.*--any-code"):
        done()
    assert list(sweep(grid, tmp_path / "out", results=rows, any_code=True, say=lambda text: None).rows) == [cell]
    (rows / f"{cell.name}.json").rename(rows / "another_arm-s0.json")  # nor does it count under another name
    made = same_runs({cell: identity(grid.config(cell, tmp_path))}, rows, {"code": code_version()["sources"]})
    assert made == {}
    assert list(same_runs({cell: identity(grid.config(cell, tmp_path))}, rows, {"code": "older"})) == [cell]


def test_the_fingerprint_tells_data_sets_with_files_of_the_same_names_apart(tmp_path):
    one, two = (write_folder(tmp_path / name) for name in ("one", "two"))

    def of(root):
        return read_configured(Config.model_validate({"data": {"root": str(root)}}).data).fingerprint

    assert of(one) == of(two)
    image = sorted((two / "images").rglob("*.png"))[0]
    image.write_bytes(image.read_bytes() + b"\0")
    assert of(one) != of(two)
