import json
import os
import platform
import subprocess

import pytest

from fuzzyseg.run.environment import collect, peak_memory_mib


def git(folder, *arguments):
    who = {
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@b.c",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@b.c",
    }
    return subprocess.run(
        ["git", *arguments], cwd=folder, check=True, capture_output=True, text=True, env={**os.environ, **who}
    ).stdout.strip()


def test_versions_and_hardware(tmp_path):
    found = collect({"threads": 2, "gpu": None}, tmp_path)
    assert json.loads(json.dumps(found)) == found
    assert found["python"] == platform.python_version()
    assert found["versions"]["torch"]
    assert found["hardware"]["threads"] == 2
    assert found["hardware"]["cores"] >= 1
    assert found["hardware"]["cpu"]


def test_git_state(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert collect(folder=tmp_path)["git"] is None
    git(tmp_path, "init")
    assert collect(folder=tmp_path)["git"] == {"commit": None, "dirty": False}
    git(tmp_path, "commit", "--allow-empty", "-m", "start")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert collect(folder=tmp_path)["git"] == {"commit": commit, "dirty": False}
    (tmp_path / "new.txt").touch()
    monkeypatch.chdir(tmp_path)
    assert collect()["git"] == {"commit": commit, "dirty": True}


def test_without_git(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert collect(folder=tmp_path)["git"] is None


def test_peak_memory_is_that_of_a_python_process():
    peak = peak_memory_mib()
    if peak is None:
        pytest.skip("this system does not tell")
    assert 5 < peak < 1e6
