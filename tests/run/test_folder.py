import json
import math
import subprocess
import sys

import pytest

from fuzzyseg.run import RunFolder, RunFolderError, folder
from fuzzyseg.run.files import write_text
from fuzzyseg.run.logs import write_json


@pytest.mark.parametrize("resume", [False, True])
def test_a_new_folder_is_made(tmp_path, resume):
    folder = RunFolder.open(tmp_path / "runs" / "a", resume=resume)
    assert folder.path.is_dir()
    assert not folder.has_checkpoint


def test_an_empty_folder_is_taken(tmp_path):
    assert RunFolder.open(tmp_path).path == tmp_path


def test_a_folder_that_is_not_empty_is_an_error_that_says_what_to_do(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(RunFolderError, match=rf"{tmp_path}.*notes\.txt.*--resume.*--out"):
        RunFolder.open(tmp_path)


def test_resuming_continues_if_there_is_a_checkpoint_and_starts_otherwise(tmp_path):
    (tmp_path / "metrics.jsonl").touch()
    assert not RunFolder.open(tmp_path, resume=True).has_checkpoint
    (tmp_path / "last.pt").touch()
    assert RunFolder.open(tmp_path, resume=True).has_checkpoint


def test_a_locked_folder_is_refused_until_its_holder_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "WAIT", 0.1)
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
                pytest.raises(RunFolderError, match=r"run: another training .*--out"),
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


def test_an_earlier_checkpoint_can_be_resumed(tmp_path):
    (tmp_path / "last-1.pt").touch()
    assert RunFolder(tmp_path).has_checkpoint


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "run").touch()
    with pytest.raises(RunFolderError, match=r"run: cannot be used as a run folder .*--out"):
        RunFolder.open(tmp_path / "run")


def test_the_files(tmp_path):
    folder = RunFolder.open(tmp_path)
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
