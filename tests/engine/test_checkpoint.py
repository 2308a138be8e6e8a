import pytest
import torch

from fuzzyseg.engine import checkpoint
from fuzzyseg.engine.checkpoint import FORMAT, CheckpointError, check_resumable, load, save

CONFIG = {"seed": 0, "train": {"steps": 10, "batch": 8, "crop": [5, 6], "workers": 2}, "optim": {"lr": 0.1}}


def changed(**train):
    return {**CONFIG, "train": {**CONFIG["train"], **train}}


def test_what_is_saved_is_loaded(tmp_path):
    path = tmp_path / "last.pt"
    save(path, {"format": FORMAT, "a": [torch.arange(3), {"b": None}], "c": 1.5})
    state = load(path)
    assert torch.equal(state["a"][0], torch.arange(3))
    assert (state["a"][1], state["c"]) == ({"b": None}, 1.5)
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]


def test_a_crash_while_saving_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "last.pt"
    save(path, {"format": FORMAT, "step": 1})

    def crash(state, file):
        file.write(b"half a file")
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint.torch, "save", crash)
    with pytest.raises(KeyboardInterrupt):
        save(path, {"format": FORMAT, "step": 2})
    monkeypatch.undo()
    assert load(path)["step"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]


def test_left_overs_of_a_killed_save_are_no_trouble(tmp_path):
    (tmp_path / "last.pt.part").write_bytes(b"half a file")
    save(tmp_path / "last.pt", {"format": FORMAT, "step": 2})
    assert load(tmp_path / "last.pt")["step"] == 2
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]


@pytest.mark.parametrize("cut", [0, 10, 700])
def test_a_damaged_file_is_named(tmp_path, cut):
    path = tmp_path / "last.pt"
    save(path, {"format": FORMAT, "x": torch.arange(100)})
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(CheckpointError, match=r"last\.pt: is damaged.*--out"):
        load(path)


def test_files_of_other_kinds_are_refused(tmp_path):
    path = tmp_path / "last.pt"
    torch.save({"weights": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match=r"last\.pt: found checkpoint format None, expected"):
        load(path)
    path.write_text("no checkpoint")
    with pytest.raises(CheckpointError, match="is damaged or not a checkpoint"):
        load(path)
    with pytest.raises(CheckpointError, match=r"other\.pt: cannot be read"):
        load(tmp_path / "other.pt")


class Runs:
    def __reduce__(self):
        return (print, ("code ran",))


def test_loading_runs_no_code(tmp_path, capsys):
    torch.save({"format": FORMAT, "x": Runs()}, tmp_path / "last.pt")
    with pytest.raises(CheckpointError, match="is damaged or not a checkpoint"):
        load(tmp_path / "last.pt")
    assert "code ran" not in capsys.readouterr().out


def test_settings_that_may_differ():
    check_resumable(CONFIG, changed(steps=20, workers=0), {"train.steps", "train.workers"})
    check_resumable(CONFIG, changed(crop=(5, 6)), set())  # a tuple equals the list that is read from a file


def test_other_settings_are_named_with_both_values():
    with pytest.raises(CheckpointError) as caught:
        check_resumable(CONFIG, {**changed(batch=4, steps=11), "seed": 3}, {"train.steps"})
    text = str(caught.value)
    assert "train.batch: the checkpoint was made with 8, this run has 4" in text
    assert "seed: the checkpoint was made with 0, this run has 3" in text
    assert "train.steps:" not in text
    assert "--out" in text


def test_settings_that_only_one_side_has_differ():
    with pytest.raises(CheckpointError, match=r"train\.new: .* not set, this run has 1"):
        check_resumable(CONFIG, changed(new=1), set())
    with pytest.raises(CheckpointError, match=r"optim\.lr: .* 0\.1, this run has not set"):
        check_resumable(CONFIG, {**CONFIG, "optim": {}}, set())
