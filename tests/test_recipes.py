"""Every shipped plan and recipe: what it says is read, and everything that it names can be built and trained."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
import yaml

from fuzzyseg.config.plan import read_plan
from fuzzyseg.experiment.build import build_method, network_factory, optimisers_of, resolve
from fuzzyseg.experiment.sweeps import Grid
from fuzzyseg.methods import Facts, Progress
from support.tiny_network import TinyNetwork, make_batch

RECIPES = Path(__file__).parents[1] / "recipes"
PLANS = [p for p in sorted(RECIPES.rglob("*.yaml")) if "arms" in yaml.safe_load(p.read_text(encoding="utf-8"))]
IMAGES = {"labelled": 4, "unlabelled": 4, "all": 8}
named = pytest.mark.parametrize("path", PLANS, ids=[p.relative_to(RECIPES).as_posix() for p in PLANS])


@cache
def settings(path):
    """(reading, arm, amount, complete settings) of each run of a plan."""
    plan = read_plan(path)
    result = []
    for reading in plan.readings or [None]:
        grid = Grid(plan.model_copy(update={"start": None}), reading=reading, seeds=1)
        result += [(reading, cell.arm, cell.labelled, grid.config(cell, Path("out"))) for cell in grid.cells]
    return result


@named
def test_every_reading_of_a_plan_gives_complete_settings_none_of_them_idle(path):
    runs = settings(path)
    plan = read_plan(path)
    assert {reading for reading, *_ in runs} == set(plan.readings or [None])
    assert len(runs) == len(plan.readings or [None]) * len(plan.arms) * max(1, len(plan.labelled)) * max(
        1, len(plan.subsets or [])
    )
    for reading, arm, amount, config in runs:
        assert resolve(config).idle == [], (reading, arm)
        assert config.data.labelled == (amount or config.data.labelled)


TABLES = [path for path in PLANS if path.name.startswith("table")]


@pytest.mark.parametrize("path", TABLES, ids=[path.stem for path in TABLES])
def test_the_released_reading_has_the_loss_of_the_release_where_fpl_is_and_nowhere_else(path):
    losses = {(reading, arm): config.loss for reading, arm, _, config in settings(path)}
    assert {reading for reading, _ in losses} == {"paper", "released"}
    for (reading, arm), loss in losses.items():
        fpl = reading == "released" and loss.name == "fuzzy"
        assert (loss.variant, loss.balance) == (("official", True) if fpl else ("paper", False)), (reading, arm)
    assert any(loss.name == "fuzzy" for loss in losses.values())


@pytest.mark.parametrize("path", TABLES, ids=[path.stem for path in TABLES])
def test_every_arm_of_a_table_has_its_published_scores(path):
    plan = read_plan(path)
    assert set(plan.expected) == set(plan.arms)


def _distinct(part):
    """A run of each distinct value of one part of the settings."""
    return {part(config): config for path in PLANS for *_, config in settings(path)}


@pytest.mark.slow
def test_every_network_is_built_and_takes_the_crop():
    for config in _distinct(lambda c: (c.network.model_dump_json(), c.train.crop)).values():
        bare = config.model_copy(update={"network": config.network.model_copy(update={"weights": "none"})})
        network = network_factory(resolve(bare), 21)().eval()
        assert all(side % network.divisor == 0 for side in config.train.crop)
        side = 4 * network.divisor
        with torch.no_grad():
            logits = network(torch.zeros(1, 3, side, side))
        assert logits.shape[:2] == (1, 21)


def _learnt(config):
    return tuple(getattr(config, part).model_dump_json() for part in ("method", "loss", "supervised", "optim"))


LEARNT = list(_distinct(_learnt).values())


@pytest.mark.parametrize("config", LEARNT, ids=[f"{c.method.name}-{c.loss.name}-{n}" for n, c in enumerate(LEARNT)])
def test_every_method_loss_and_optimiser_makes_a_step(config):
    torch.manual_seed(0)
    method = build_method(resolve(config, network=lambda: TinyNetwork(21)), Facts(21, background=0, images=IMAGES))
    optimisers = optimisers_of(config.optim, method)
    batch = {
        name: make_batch(2, (32, 32), 21, masks=stream.source == "labelled", seed=number, view=stream.view)
        for number, (name, stream) in enumerate(method.streams.items())
    }
    trained = next(iter(method.roles()["head"].params))
    before = trained.detach().clone()
    total = torch.stack(list(method(batch, Progress(5, 10)).losses.values())).sum()
    total.backward()
    assert torch.isfinite(total)
    for optimiser in optimisers:
        optimiser.step()
    method.after_step(Progress(5, 10))
    assert not torch.equal(before, trained)
