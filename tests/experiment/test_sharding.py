"""Training with sharded weights (FSDP2) equals training with whole ones, and both continue each other's checkpoints."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import fuzzyseg
from fuzzyseg.config import ConfigError
from fuzzyseg.engine.sharding import Sharding
from methods.test_contract import batches, build
from support.processes import run_in_processes
from support.tiny_data import settings, write_folder
from support.tiny_network import TinyNetwork

CASES: dict[str, dict[str, Any]] = {
    "supervised": {"train": {"ema": 0.9}},
    "fixmatch": {"optim": {"clip": 0.1}},
    "unimatch": {"train": {"accumulate": 2}},
    "unimatch_v2": {"optim": {"name": "adamw", "lr": 0.01, "clip": 0.5}},
    "mean_teacher": {"optim": {"name": "adamw", "lr": 0.01}, "train": {"precision": "bf16"}},
    "cps": {"train": {"channels_last": False}},
}
NORMS = {"supervised": "batch"}
"""With batch norm, an EMA has buffers, which are not sharded."""
RESUMED = "unimatch_v2"
RESULTS = "modules", "optimisers", "last"


def train(folder: str, out: str, method: str, sharding: str, *, resume: bool = False, **more: Any) -> None:
    case = CASES.get(method, {})
    options = {"steps": 4, "log_every": 1, "eval_every": 2, "sharding": sharding} | case.get("train", {}) | more
    config = settings(
        Path(folder, "data"), Path(folder, out), method={"name": method}, train=options, optim=case.get("optim", {}),
        evaluate={"gallery": 0}, loss={"name": "paper" if method == "supervised" else "fuzzy"},
    )  # fmt: skip
    fuzzyseg.train(
        config, network=partial(TinyNetwork, classes=3, norm=NORMS.get(method, "group")), resume=resume, quiet=True
    )


def held() -> list[int]:
    """Numbers of weights and gradients that a process holds after a backward pass, and of all weights."""
    method = build("unimatch_v2", "paper", {}, norm="group")
    every = sum(each.numel() for each in method.parameters())
    Sharding(method, torch.device("cpu"))
    losses = method(batches(method, seed=0, count=2), fuzzyseg.methods.Progress(0, 10)).losses
    torch.stack(list(losses.values())).sum().backward()
    own = [each.to_local().numel() for each in method.parameters()]
    gradients = [each.grad.to_local().numel() for each in method.parameters() if each.grad is not None]
    return [sum(own), sum(gradients), every]


def in_two_processes(rank: int, folder: str) -> list[int]:
    calls, shard = [], Sharding.shard
    Sharding.shard = lambda *arguments: calls.append(1) or shard(*arguments)
    for method in CASES:
        for sharding in ("none", "fsdp"):
            train(folder, f"{method}-{sharding}", method, sharding)
    for first, second in (("none", "fsdp"), ("fsdp", "none"), ("fsdp", "fsdp")):
        train(folder, f"{first}-{second}", RESUMED, first, stop_at=2)
        train(folder, f"{first}-{second}", RESUMED, second, resume=True)
    train(folder, "fsdp-alone", RESUMED, "fsdp", stop_at=2)
    return [len(calls), *held()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("sharding")
    write_folder(path / "data")
    (path / "meet").mkdir()
    run_in_processes(in_two_processes, path / "meet", str(path))
    return path


def tensors(value: Any, path: str = "") -> dict[str, Any]:
    """The leaves of nested containers by path."""
    if isinstance(value, dict | list):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        return {key: leaf for name, part in pairs for key, leaf in tensors(part, f"{path}/{name}").items()}
    return {path: value}


def compare(one: Path, other: Path) -> None:
    """Weights, optimiser states and scores of two runs are equal within 1e-5."""
    first, second = (
        tensors({key: torch.load(run / "last.pt", weights_only=True)[key] for key in RESULTS}) for run in (one, other)
    )
    assert first.keys() == second.keys()
    for name, value in first.items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(second[name], value, rtol=0, atol=1e-5, msg=name)
        else:
            assert second[name] == (pytest.approx(value, abs=1e-5) if isinstance(value, float) else value), name


@pytest.mark.slow
@pytest.mark.parametrize("method", CASES)
def test_sharded_weights_equal_whole_ones(folder, method):
    compare(folder / f"{method}-none", folder / f"{method}-fsdp")
    saved = [(folder / f"{method}-{each}" / "model" / "model.safetensors").read_bytes() for each in ("none", "fsdp")]
    assert len(saved[0]) == len(saved[1])


@pytest.mark.slow
@pytest.mark.parametrize("parts", ["none-fsdp", "fsdp-none", "fsdp-fsdp"])
def test_either_continues_the_other(folder, parts):
    compare(folder / f"{RESUMED}-none", folder / parts)


@pytest.mark.slow
def test_one_process_continues_a_sharded_run(folder):
    train(str(folder), "fsdp-alone", RESUMED, "fsdp", resume=True)
    compare(folder / f"{RESUMED}-none", folder / "fsdp-alone")


@pytest.mark.slow
def test_each_process_holds_a_part(folder):
    parts = [torch.load(folder / "meet" / f"result-{rank}.pt", weights_only=True) for rank in range(2)]
    (calls, first, gradients, every), (_, second, more, _) = parts
    assert calls == len(CASES) + 1 + 5  # one of them with an average, and five more runs
    assert first + second == every and max(first, second) < 0.6 * every
    assert gradients + more == every / 2  # the teacher has none


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"method": {"name": "vat"}}, "method vat"),
        ({"method": {"name": "gct"}}, "method gct"),
        ({"train": {"compile": True}}, "train.compile"),
        ({"train": {"precision": "fp16"}}, "use bf16"),
        ({"loss": {"threshold": "calibrated"}}, "calibration"),
        ({"network": {"encoder": "mobilenet_v2", "arch": "FPN"}, "train": {"crop": [32, 32]}}, "no transformer blocks"),
    ],
)
def test_what_cannot_be_sharded_is_refused(tmp_path, sections, words):
    config = settings(write_folder(tmp_path / "data"), tmp_path / "run", **sections)
    config["train"] |= {"sharding": "fsdp"}
    network = None if "network" in sections else partial(TinyNetwork, classes=3)
    with pytest.raises(ConfigError, match=f"train.sharding: found fsdp, but .*{words}"):
        fuzzyseg.train(config, network=network, quiet=True)
    assert not (tmp_path / "run").exists()
