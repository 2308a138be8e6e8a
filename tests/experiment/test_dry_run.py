"""A dry run, the number of threads, and errors that suggest settings."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import fuzzyseg
from fuzzyseg.config import ConfigError, EvaluateConfig
from fuzzyseg.data import Item
from fuzzyseg.engine import Settings
from fuzzyseg.experiment import dry_run, threads
from fuzzyseg.experiment.threads import cpu_threads, fastest_threads
from fuzzyseg.run.folder import RunFolder
from support.processes import run_in_processes
from support.tiny_data import settings, write_folder
from support.tiny_network import TinyNetwork

own = partial(TinyNetwork, classes=3)


def train(config, **options):
    return fuzzyseg.train(config, network=own, **options)


@pytest.mark.parametrize(("steps", "times"), [(40, 10), (2, 2), (1, 1)])
def test_a_dry_run_reports_time_and_writes_nothing(tmp_path, capsys, steps, times):
    data, out = write_folder(tmp_path / "data"), tmp_path / "run"
    files = sorted(tmp_path.rglob("*"))
    result = train(settings(data, out, train={"steps": steps, "eval_every": None}), dry_run=True)
    assert sorted(tmp_path.rglob("*")) == files
    assert result.result is None
    text = capsys.readouterr().out
    assert f"{steps} steps" in text
    assert f"{times} evaluation" in text
    assert train(settings(data, out, train={"steps": 1}), quiet=True).finished  # the folder is free


def test_the_time_of_all_steps_and_evaluations_is_extrapolated(tmp_path, monkeypatch):
    now = [100.0]

    def fit(method, batches, optimisers, settings, sinks, sharding):
        for seconds in (10, 2, 2):  # the first step is slower
            now[0] += seconds
            sinks[0].tick(0)
        return SimpleNamespace(step=3, predictor=None)

    def evaluate(predictor, items, **options):
        assert [item.name for item in items] == ["large"]
        now[0] += 5

    for name, value in {"fit": fit, "evaluate": evaluate, "Predictor": lambda *args: None}.items():
        monkeypatch.setattr(dry_run, name, value)
    monkeypatch.setattr(dry_run.time, "monotonic", lambda: now[0])
    items = [Item(tmp_path / name, tmp_path / name, name) for name in ("small", "large", "medium")]
    for item, size in zip(items, (10, 30, 20), strict=True):
        item.image.write_bytes(bytes(size))
    scoring = SimpleNamespace(items=items, settings=EvaluateConfig(), card_at=lambda step: None, device=None)
    short = Settings(steps=100, device=torch.device("cpu"), eval_every=20)
    text = "\n".join(dry_run.dry_run(None, [], short, None, scoring))
    for found in ("2.00 s per step, 0:03:20 for 100 steps", "3 images: 0:00:15; 5 evaluations", "about 0:04:35"):
        assert found in text


def test_the_run_resumes_with_the_threads_it_began_with(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    monkeypatch.setattr(threads, "fastest_threads", lambda *args: 3)
    torch.set_num_threads(4)
    try:
        data, out, used = write_folder(tmp_path / "data"), tmp_path / "run", []
        config = settings(data, out, train={"steps": 2, "stop_at": 1})
        original = threads.torch.set_num_threads
        train(config, quiet=True)
        assert RunFolder(out).read(RunFolder(out).environment)["hardware"]["threads"] == 3
        assert torch.get_num_threads() == 4  # the caller's
        monkeypatch.setattr(threads, "fastest_threads", lambda *args: 2)  # the machine is busier now
        monkeypatch.setattr(threads.torch, "set_num_threads", lambda n: used.append(n) or original(n))
        config["train"]["stop_at"] = None
        assert train(config, quiet=True, resume=True).finished
        assert used[0] == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("wanted", "variable", "expected"), [(2, "8", 2), ("auto", "8", 4), ("auto", None, 1)])
def test_a_number_and_the_environment_come_before_the_measurement(monkeypatch, wanted, variable, expected):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if variable is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    monkeypatch.setattr(threads, "fastest_threads", lambda *args: 1)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        with cpu_threads(wanted, own(), (1, 3, 8, 8), None):
            assert torch.get_num_threads() == expected
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [({1: 1.0, 2: 0.6, 4: 0.4}, 4), ({1: 1.0, 2: 0.6, 4: 8.0}, 2), ({1: 1.0, 2: 0.97, 4: 0.96}, 1)],
)
def test_the_fewest_threads_that_are_not_slower_win(monkeypatch, seconds, expected):
    before = torch.get_num_threads()
    monkeypatch.setattr(threads, "_seconds", lambda *args: seconds[torch.get_num_threads()])
    try:
        assert fastest_threads(own(), (1, 3, 8, 8), 4) == expected
    finally:
        torch.set_num_threads(before)


def test_too_little_gpu_memory_names_settings(tmp_path):
    class Full(TinyNetwork):
        def encode(self, image):
            if torch.is_grad_enabled() and self.training:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return super().encode(image)

    config = settings(write_folder(tmp_path / "data"), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"out of GPU memory.*train\.accumulate"):
        fuzzyseg.train(config, network=partial(Full, classes=3), quiet=True)


def test_batch_norm_over_all_processes_needs_a_gpu(tmp_path):
    config = settings(write_folder(tmp_path / "data"), tmp_path / "run", train={"sync_batch_norm": True})
    with pytest.raises(ConfigError, match=r"train\.sync_batch_norm"):
        train(config, quiet=True)
    assert not (tmp_path / "run").exists()


def rehearse(rank: int, folder: str) -> bool:
    result = train(settings(Path(folder) / "data", Path(folder) / "run"), dry_run=True, quiet=True)
    return result.finished


@pytest.mark.slow
def test_two_processes_rehearse_together(tmp_path):
    write_folder(tmp_path / "data", val=3)
    (tmp_path / "meet").mkdir()
    assert run_in_processes(rehearse, tmp_path / "meet", str(tmp_path)) == [False, False]
    assert not (tmp_path / "run").exists()
