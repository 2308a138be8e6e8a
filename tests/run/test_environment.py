import json
import os
import platform
import subprocess

from fuzzyseg.run.environment import code_version, collect


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
    found = collect({"threads": 2, "gpu": None})
    assert json.loads(json.dumps(found)) == found
    assert found["python"] == platform.python_version()
    assert found["versions"]["torch"]
    assert found["hardware"]["threads"] == 2
    assert found["hardware"]["cores"] >= 1
    assert found["hardware"]["cpu"]


def test_the_code_is_told_by_its_files_and_by_the_commit_that_last_changed_them(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    package = tmp_path / "package"
    (package / "room").mkdir(parents=True)
    (package / "__init__.py").write_text("a = 1\n")
    (package / "room" / "b.py").write_text("b = 1\n")
    first = code_version(package)
    assert first["commit"] is None
    git(tmp_path, "init")
    assert code_version(package) == first  # nothing is committed: the folder around it says nothing of the package
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "code")
    commit = git(tmp_path, "rev-parse", "HEAD")
    git(tmp_path, "commit", "--allow-empty", "-m", "documents")
    assert code_version(package) == {**first, "commit": commit}
    (package / "room" / "b.py").write_text("b = 2\n")
    assert code_version(package)["sources"] != first["sources"]


def test_no_program_of_a_repositorys_configuration_is_run(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    (tmp_path / "__init__.py").touch()
    (tmp_path / ".gitattributes").write_text("* filter=trap diff=trap\n")
    git(tmp_path, "init")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "code")
    trap = f"touch {tmp_path / 'ran'}; cat"
    for key in ("core.fsmonitor", "filter.trap.clean", "diff.trap.textconv", "gpg.program", "core.pager"):
        git(tmp_path, "config", key, trap)
    git(tmp_path, "config", "log.showSignature", "true")
    (tmp_path / "__init__.py").write_text("changed = True\n")
    monkeypatch.chdir(tmp_path)
    assert code_version(tmp_path)["commit"]
    collect()
    assert not (tmp_path / "ran").exists()


def test_without_git(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert code_version()["commit"] is None
