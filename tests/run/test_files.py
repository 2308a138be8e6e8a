"""A disk that takes no more: the error names the file, what was there stays, and no part is left."""

import errno
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from fuzzyseg.cli.errors import FAILED, explained
from fuzzyseg.data import DataError
from fuzzyseg.data.io.write import check_writable
from fuzzyseg.engine import checkpoint
from fuzzyseg.inference.model import save_model
from fuzzyseg.inference.model_card import ModelCard
from fuzzyseg.run.files import disk_error, write_text
from fuzzyseg.run.folder import RunFolder

resource = pytest.importorskip("resource")
MANY = 10**6


@pytest.fixture
def small_disk():
    """Files of at most 100 kB can be written."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10**5, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


class Large(nn.Module):
    def __init__(self, size: int = MANY) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(size))


def save_large(path: Path, size: int = MANY) -> None:
    save_model(path, Large(size), card=ModelCard(["a", "b"], [0.5] * 3, [0.5] * 3, (32, 32)))


WRITERS = {
    "checkpoint": lambda path, size: checkpoint.save(path, {"x": torch.zeros(size)}, keep=2),
    "model": save_large,
    "text": lambda path, size: write_text(path, "x" * size),
}


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", WRITERS)
def test_an_interrupted_write_leaves_what_was_there(tmp_path, kind, small_disk):
    path = tmp_path / "result"
    WRITERS[kind](path, 10)
    before = content(tmp_path)
    with pytest.raises(OSError, match="too large") as error:
        WRITERS[kind](path, MANY)
    assert (error.value.errno, error.value.filename) == (errno.EFBIG, str(path))
    assert content(tmp_path) == before
    assert sorted(os.listdir(tmp_path)) == ["result"]


@pytest.mark.parametrize(
    "error", [RuntimeError("unexpected pos 64 vs 0"), OSError(errno.ENOENT, "gone"), RuntimeError("(os error 2)")]
)
def test_other_errors_are_left_alone(error):
    assert disk_error(error, Path("a")) is None


@pytest.mark.parametrize("has_checkpoint", [True, False])
def test_the_run_folder_says_what_can_be_resumed(tmp_path, has_checkpoint):
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    if has_checkpoint:
        folder.last_pt.write_bytes(b"")
    with pytest.raises(OSError, match="--resume") as error, folder.lock():
        raise OSError(errno.ENOSPC, "No space left on device", "metrics.jsonl")
    message, code = explained(error.value, "train")
    assert code == FAILED
    assert message.startswith("metrics.jsonl: cannot be written (No space left on device)")
    assert (str(folder.last_pt) in message) == has_checkpoint


@pytest.mark.parametrize(
    ("number", "code"), [(errno.ENOSPC, 1), (errno.EROFS, 1), (errno.EACCES, 2), (errno.ENOTDIR, 2)]
)
def test_a_disk_that_takes_no_more_is_a_failure_and_a_wrong_folder_a_wrong_request(tmp_path, monkeypatch, number, code):
    def refused(**options):
        raise OSError(number, os.strerror(number), "unnamed")

    monkeypatch.setattr("fuzzyseg.data.io.write.TemporaryFile", refused)
    with pytest.raises(DataError) as error:
        check_writable(tmp_path / "out")
    message, found = explained(error.value, "predict")
    assert message.startswith(f"{tmp_path / 'out'}: cannot be written ({os.strerror(number)})")
    assert found == code


def test_what_a_killed_process_left_is_deleted(tmp_path):
    folder = RunFolder(tmp_path / "run")
    (tmp_path / "run" / ".best.part").mkdir(parents=True)
    (tmp_path / "run" / "last.pt.7.part").write_text("")
    with folder.lock():
        assert sorted(os.listdir(folder.path)) == [".lock"]
