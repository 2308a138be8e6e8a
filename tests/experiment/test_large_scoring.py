"""A validation image that is too large to be decoded whole: its score in training, and what the fuzzy sets hold."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
import tifffile
from PIL import Image

import fuzzyseg
from fuzzyseg.inference import predictor as room
from support.tiny_data import settings, write_folder
from support.tiny_network import TinyNetwork

SIZE = (1200, 900)


@pytest.fixture
def folder(tmp_path):
    root = write_folder(tmp_path / "data", images=8, masks=8, val=2)
    for kind in ("images", "masks"):
        small = Image.open(root / kind / "val" / "im08.png")
        array = np.array(small.resize(SIZE[::-1], Image.Resampling.NEAREST))
        colours = "rgb" if kind == "images" else "minisblack"
        path = root / kind / "val" / "large.tif"
        tifffile.imwrite(path, array, photometric=colours, compression="zlib", tile=(128, 128))
    return root


def test_the_evaluation_in_training_is_that_of_the_whole(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(room, "MAX_PIXELS", 100_000)
    monkeypatch.setattr(room, "TILE", (300, 400))
    result = []
    for name, limit in (("whole", None), ("parts", 1)):
        sections = {
            "data": {"max_megapixels": limit, "labelled": "4"},
            "train": {"steps": 2, "eval_every": 2, "k_maps": 3},
        }
        config = settings(folder, tmp_path / name, **sections)
        run = fuzzyseg.train(config, network=partial(TinyNetwork, classes=3), quiet=True).run
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        result.append(next(line["evaluation"] for line in lines if "evaluation" in line))
        maps = len(list((run / "maps").rglob("*0000*.png")))
        assert maps == (3 if limit is None else 2)  # none of the large image
    whole, parts = result
    fuzzy = [each.pop("fuzzy") for each in result]
    for each in result:
        each.pop("calibration")  # of a random part of the pixels, another one in tiles
    assert parts == whole
    # The tiles do not overlap: a pixel at a seam sees less than it does in the whole image.
    for part in ("coverage", "top1"):
        assert fuzzy[1][part] == pytest.approx(fuzzy[0][part], abs=0.01)
    assert fuzzy[1]["labelled"] == fuzzy[0]["labelled"]
