"""The demonstration from nothing to a table and pictures, with few images and steps."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from fuzzyseg.config import ConfigError
from fuzzyseg.experiment import demo as module


@pytest.mark.slow
def test_demo_compares_three_arms_and_draws_them(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "IMAGES", 12)
    monkeypatch.setattr(module, "START", 2)
    monkeypatch.setattr(module, "MORE", 3)
    said = []
    rows = module.demo(tmp_path / "demo", say=said.append)
    assert [row.name for row in rows] == ["supervised", "cps", "cps + fpl"]
    assert all(0 <= row.miou <= 1 for row in rows)
    assert rows[0].coverage is None
    assert rows[2].coverage >= rows[2].top1  # the set holds the most probable class
    assert any("cps + fpl" in text and "truth in set" in text for text in said)
    stored = json.loads((tmp_path / "demo" / "table.json").read_text())
    assert [row["miou"] for row in stored] == [row.miou for row in rows]
    pictures = sorted((tmp_path / "demo" / "pictures").glob("*.png"))
    assert len(pictures) == 6
    picture = np.asarray(Image.open(pictures[0]))
    assert picture.shape == (288, 6 * 288, 3)
    with pytest.raises(ConfigError, match="not empty"):
        module.demo(tmp_path / "demo", say=said.append)


def test_both_semi_supervised_arms_differ_in_the_loss_alone():
    """Else the table would compare more than the loss."""
    hard, fuzzy = module.ARMS["cps"], module.ARMS["cps + fpl"]
    assert hard["method"] == fuzzy["method"]
    assert (hard["loss"], fuzzy["loss"]) == ({"name": "hard"}, {"name": "fuzzy"})
