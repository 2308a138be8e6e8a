import io
from contextlib import nullcontext

import pytest
import torch

from fuzzyseg.engine import checkpoint
from fuzzyseg.engine.checkpoint import FORMAT, CheckpointError, check_resumable, load, save

CONFIG = {"seed": 0, "train": {"steps": 10, "batch": 8, "crop": [5, 6], "workers": 2}, "optim": {"lr": 0.1}}


STATE = {
    "step": 1, "last": None, "best": None, "modules": {"method": {"w": torch.arange(300.0)}}, "replicas": {},
    "optimisers": [{"state": {}}], "scaler": {}, "streams": {}, "config": CONFIG,
}  # fmt: skip


def saved(path, keep=2, **changes):
    save(path, STATE | changes, keep=keep)
    return path


def changed(**train):
    return {**CONFIG, "train": {**CONFIG["train"], **train}}


def test_what_is_saved_is_loaded(tmp_path):
    path = tmp_path / "last.pt"
    saved(path, a=[torch.arange(3), {"b": None}], c=1.5)
    state = load(path)
    assert torch.equal(state["a"][0], torch.arange(3))
    assert (state["a"][1], state["c"]) == ({"b": None}, 1.5)
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]


def test_a_crash_while_saving_leaves_the_old_file(tmp_path, monkeypatch):
    path = saved(tmp_path / "last.pt")

    def crash(state, file):
        file.write(b"half a file")
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint.torch, "save", crash)
    with pytest.raises(KeyboardInterrupt):
        saved(path, step=2)
    monkeypatch.undo()
    assert load(path)["step"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]


@pytest.mark.parametrize("writes", [1, 3, 5])
def test_a_second_signal_while_torch_writes_is_an_interruption(tmp_path, monkeypatch, writes):
    calls = []

    class Interrupted(io.BytesIO):
        def write(self, data):
            calls.append(len(data))
            if len(calls) == writes:
                raise KeyboardInterrupt
            return super().write(data)

    monkeypatch.setattr(checkpoint, "replacing", lambda path: nullcontext(Interrupted()))
    with pytest.raises(KeyboardInterrupt):
        saved(tmp_path / "last.pt")
    assert len(calls) >= writes


@pytest.mark.parametrize("cut", [0, 10, 700])
def test_a_damaged_file_is_named(tmp_path, cut):
    path = saved(tmp_path / "last.pt")
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


def test_the_last_checkpoints_are_kept(tmp_path):
    for step in range(1, 6):
        saved(tmp_path / "last.pt", keep=3, step=step)
    assert {file.name for file in tmp_path.iterdir()} == {"last.pt", "last-1.pt", "last-2.pt"}
    assert [load(file)["step"] for file in checkpoint.candidates(tmp_path / "last.pt")] == [5, 4, 3]


def test_any_damaged_byte_is_detected(tmp_path):
    path = saved(tmp_path / "last.pt")
    content = path.read_bytes()
    places = {*range(0, len(content), 61), *range(len(content) - 120, len(content))}  # data, padding, directory, digest
    for place in places:
        for value in (content[place] ^ 1, 0):
            path.write_bytes(content[:place] + bytes([value]) + content[place + 1 :])
            if value != content[place]:
                with pytest.raises(CheckpointError, match="is damaged"):
                    load(path)
    path.write_bytes(content)
    assert load(path)["step"] == 1


def test_a_file_of_an_earlier_version_has_no_checksum_and_is_read(tmp_path):
    path = tmp_path / "last.pt"
    torch.save({"format": FORMAT, **STATE}, path)
    assert load(path)["step"] == 1
    content = bytearray(path.read_bytes())
    content[content.index(torch.arange(300.0).numpy().tobytes()) + 5] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged"):
        load(path)


@pytest.mark.parametrize("damage", ["cut", "nan", "missing"])
def test_the_checkpoint_before_replaces_a_damaged_one_with_a_warning(tmp_path, damage, caplog):
    path = saved(tmp_path / "last.pt", step=3)
    saved(path, step=4, modules={"method": {"w": torch.tensor([1.0, torch.nan if damage == "nan" else 1.0])}})
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    if damage == "missing":  # killed between two renames
        path.unlink()
    assert load(path)["step"] == 3
    assert "last.pt" in caplog.text
    assert "last-1.pt, step 3" in caplog.text
    caplog.clear()
    saved(path, step=4)
    assert load(path)["step"] == 4
    assert not caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimisers": None}, "optimisers is of type NoneType"),
        ({"step": "3"}, "step is of type str"),
        ({"format": torch.zeros(2)}, "found checkpoint format tensor"),
        ({"step": -1}, "found step -1, expected 0 or more"),
        ({"unscored": 5}, "unscored is of type int"),
        ({"unscored": None}, "unscored is of type NoneType"),
    ],
)
def test_keys_of_another_type_are_named(tmp_path, changes, message):
    with pytest.raises(CheckpointError, match=message):
        load(saved(tmp_path / "last.pt", **changes))


def test_missing_keys_are_named_in_one_line(tmp_path):
    torch.save({"format": FORMAT, "step": 3}, tmp_path / "last.pt")
    with pytest.raises(CheckpointError, match=r"last\.pt: .*last is missing.*version") as caught:
        load(tmp_path / "last.pt")
    assert "\n" not in str(caught.value)


class Runs:
    def __reduce__(self):
        return (print, ("code ran",))


def test_loading_runs_no_code(tmp_path, capsys):
    torch.save({"format": FORMAT, "x": Runs()}, tmp_path / "last.pt")
    with pytest.raises(CheckpointError, match="is damaged or not a checkpoint") as caught:
        load(tmp_path / "last.pt")
    assert "code ran" not in capsys.readouterr().out
    assert "weights_only" not in str(caught.value)


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
