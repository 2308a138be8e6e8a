import json
import math
import subprocess
import sys

import pytest

from fuzzyseg.run import RunFolder, RunFolderError, folder
from fuzzyseg.run.files import write_text
from fuzzyseg.run.logs import write_json


def test_a_new_folder_is_made_with_the_lock(tmp_path):
    folder = RunFolder(tmp_path / "runs" / "a")
    folder.check_empty(resume=False)
    assert not folder.path.exists()
    with folder.lock():
        assert folder.path.is_dir()
    assert not folder.has_checkpoint


def test_an_empty_folder_is_taken(tmp_path):
    RunFolder(tmp_path).check_empty(resume=False)


def test_a_folder_that_is_not_empty_is_an_error_that_says_what_to_do(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(RunFolderError, match=rf"{tmp_path}.*notes\.txt.*--resume.*--out"):
        RunFolder(tmp_path).check_empty(resume=False)


@pytest.mark.parametrize("left", [None, "last.pt", "last-1.pt", "result.json", "model", "best"])
def test_what_a_training_leaves_before_its_first_checkpoint_is_used_again(tmp_path, left):
    for name in (".lock", "config.yaml", "split.json", "environment.json", "metrics.jsonl", left or "config.yaml"):
        (tmp_path / name).touch()
    (tmp_path / "tensorboard").mkdir()
    if left is None:
        RunFolder(tmp_path).check_empty(resume=False)
    else:
        with pytest.raises(RunFolderError, match=f"is not empty .found {left}"):
            RunFolder(tmp_path).check_empty(resume=False)


def test_resuming_continues_if_there_is_a_checkpoint_and_starts_otherwise(tmp_path):
    (tmp_path / "metrics.jsonl").touch()
    folder = RunFolder(tmp_path)
    folder.check_empty(resume=True)
    assert not folder.has_checkpoint
    (tmp_path / "last.pt").touch()
    folder.check_empty(resume=True)
    assert folder.has_checkpoint


def test_a_locked_folder_is_refused_until_its_holder_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "LOCK_TIMEOUT", 0.1)
    run = tmp_path / "run"
    code = f"""
import time
from fuzzyseg.run import RunFolder
with RunFolder({str(run)!r}).lock():
    print(1, flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as other:
        assert other.stdout.read(1) == b"1"
        (run / "last.pt.123.part").touch()
        for _ in range(2):  # a refused attempt does not break the lock
            with (
                pytest.raises(RunFolderError, match=r"run: is in use by another training .*--out"),
                RunFolder(run).lock(),
            ):
                pass
        assert (run / "last.pt.123.part").exists()
        other.kill()
    with RunFolder(run).lock():  # of a dead process
        assert not list(run.glob("*.part"))
        with pytest.raises(RunFolderError, match="another training"), RunFolder(run).lock():
            pass
    RunFolder(run).check_empty(resume=False)


@pytest.mark.parametrize("text", ["[1]", "3", "{", "", "[" * 100_000, None])
def test_a_damaged_record_is_named_in_one_line(tmp_path, text):
    run = RunFolder(tmp_path)
    if text is not None:
        run.result.write_text(text)
    with pytest.raises(RunFolderError, match=r"result\.json: cannot be read.*restore the file") as caught:
        run.read(run.result)
    assert "\n" not in str(caught.value)
    write_json(run.result, {"last": None})
    assert run.read(run.result) == {"last": None}


def test_an_earlier_checkpoint_can_be_resumed(tmp_path):
    (tmp_path / "last-1.pt").touch()
    assert RunFolder(tmp_path).has_checkpoint


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "run").touch()
    with pytest.raises(RunFolderError, match=r"run: cannot be used as a run folder .*--out"):
        RunFolder(tmp_path / "run").check_empty(resume=False)
    with pytest.raises(RunFolderError, match=r"run: cannot be used"), RunFolder(tmp_path / "run").lock():
        pass


def test_the_files(tmp_path):
    folder = RunFolder(tmp_path)
    write_text(folder.config, "seed: 0\n")
    write_json(folder.split, {"labelled": ["ä", "b"], "hash": "12"})
    write_json(folder.environment, {"python": "3"})
    write_json(folder.result, {"last": {"miou": 0.4, "per_class": [0.1, math.nan]}})
    names = {"config.yaml", "split.json", "environment.json", "result.json"}
    assert {file.name for file in tmp_path.iterdir()} == names
    assert folder.config.read_text() == "seed: 0\n"
    assert json.loads(folder.split.read_text("utf-8"))["labelled"] == ["ä", "b"]
    assert json.loads(folder.result.read_text())["last"]["per_class"] == [0.1, None]
    assert folder.model_dir == tmp_path / "model"
    assert folder.best_dir == tmp_path / "best"


def test_a_configuration_of_the_users_own_is_not_taken_for_that_of_a_run(tmp_path):
    run = RunFolder(tmp_path)
    run.config.touch()
    with pytest.raises(RunFolderError, match=r"is not empty \(found config\.yaml\)"):
        run.check_empty(resume=False)
    with run.lock():
        pass
    run.check_empty(resume=False)
