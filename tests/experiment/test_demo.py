"""The demonstration from nothing to a table and pictures, with few images and steps."""

from __future__ import annotations

import pytest

from fuzzyseg.config import ConfigError
from fuzzyseg.config.plan import read_plan
from fuzzyseg.experiment import demo as module


@pytest.mark.slow
def test_demo_compares_three_arms_and_predicts(tmp_path):
    plan = read_plan(module.PLAN)
    plan.base["train"]["steps"], plan.start["train"]["steps"] = 3, 2
    said = []
    done = module.demo(tmp_path / "demo", say=said.append, plan=plan, images=12)
    rows = {cell.arm: row for cell, row in done.rows.items()}
    assert rows.keys() == {"supervised", "cps", "cps + fpl"}, done.failed
    assert len({str(row["starts"][0]) for row in rows.values()}) == 1
    fuzzy = rows["cps + fpl"]["result"]["last"]["fuzzy"]
    assert fuzzy["coverage"] >= fuzzy["top1"]  # the set holds the most probable class
    assert done.table in said
    pictures = sorted((tmp_path / "demo" / "pictures").iterdir())
    assert len(pictures) == 3
    assert len(list(pictures[0].rglob("*demo_0000*"))) == 2  # mask and overlay
    with pytest.raises(ConfigError, match="not empty"):
        module.demo(tmp_path / "demo", say=said.append)


def test_both_semi_supervised_arms_differ_in_the_loss_alone():
    """Else the table would compare more than the loss."""
    hard, fuzzy = (read_plan(module.PLAN).arms[name] for name in ("cps", "cps + fpl"))
    assert hard["method"] == fuzzy["method"]
    assert (hard["loss"], fuzzy["loss"]) == ({"name": "hard"}, {"name": "fuzzy"})
