"""The example of docs/own-network.md runs as it is printed, but for fewer steps."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import fuzzyseg
from fuzzyseg.config import ConfigError
from fuzzyseg.data.datasets.synthetic import write_demo


def test_the_documented_example_runs(tmp_path, monkeypatch):
    text = (Path(__file__).parents[2] / "docs" / "own-network.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL).group(1)
    monkeypatch.chdir(tmp_path)
    write_demo("photos", train=24, val=2, size=(64, 80))
    assert '"steps": 2000' in code
    names: dict = {}
    exec(code.replace('"steps": 2000', '"steps": 2'), names)
    assert names["mask"].shape == (120, 160)
    assert names["mask"].dtype == torch.int64
    again = fuzzyseg.load("runs/small", network=names["Small"])
    assert again.card.arch is None


def test_weights_of_an_own_network_start_another_run(tmp_path, monkeypatch):
    from functools import partial

    from support.tiny_data import settings, write_folder
    from support.tiny_network import TinyNetwork

    folder, factory = write_folder(tmp_path / "data"), partial(TinyNetwork, classes=3)
    short = {"steps": 1, "evaluate": False}
    starts = []
    for seed in (0, 1):
        config = settings(folder, tmp_path / f"start{seed}", train=short, loss={"name": "paper"}, seed=seed)
        config["method"] = {"name": "supervised"}
        starts.append(fuzzyseg.train(config, network=factory, quiet=True).run)
    config = settings(folder, tmp_path / "next", train=short, init=[str(s) for s in starts], optim={"lr": 1e-12})
    run = fuzzyseg.train(config, network=factory, quiet=True).run
    for number, name in enumerate(("first", "second")):
        state = torch.load(run / "last.pt", weights_only=True)["modules"]["method"]
        begun = fuzzyseg.load(starts[number], network=factory).network.state_dict()
        torch.testing.assert_close(state[f"{name}.head.weight"], begun["head.weight"])


def test_a_network_with_too_few_channels_is_refused_before_the_first_step(tmp_path):
    from functools import partial

    from support.tiny_data import settings, write_folder
    from support.tiny_network import TinyNetwork

    config = settings(write_folder(tmp_path / "data"), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"returned \(1, 2, 8, 12\); expected logits \(1, 3, h, w\)"):
        fuzzyseg.train(config, network=partial(TinyNetwork, classes=2), quiet=True)
