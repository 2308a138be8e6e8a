"""`analyse` reads images as the run did: their bands, their range, and by windows what is too large."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import tifffile
from PIL import Image

import fuzzyseg
from fuzzyseg.experiment import analyse
from fuzzyseg.inference import predictor as room
from support.tiny_data import settings, write_folder
from support.tiny_network import TinyNetwork

own = partial(TinyNetwork, classes=3)
SHORT = {"steps": 2, "eval_every": 2, "k_maps": 2}


def agrees_with_training(run, tmp_path):
    """The network as its own teacher, measured anew, sees what the last evaluation logged."""
    result = analyse(run / "model", network=own, device="cpu", out=tmp_path / "analysis", threshold=0.5)
    assert "fuzzy_sets.png" in result["figures"]
    logged = analyse(run, network=own, device="cpu", out=tmp_path / "of the run", threshold=0.5)
    assert "k_maps.png" in logged["figures"]
    return result["groups"]["val"], logged["over_time"]["evaluations"][-1]


@pytest.mark.parametrize("limits", [{}, {"low": [10] * 3, "high": [90] * 3}], ids=["8 bits", "given range"])
def test_bands_and_range_are_the_runs(tmp_path, limits):
    root = write_folder(tmp_path / "data")
    for path in sorted(root.glob("images/*/*.png")):
        image = np.array(Image.open(path))
        stack = np.dstack([image, 255 - image[..., :1]]).astype(np.uint16 if limits else np.uint8)
        tifffile.imwrite(path.with_suffix(".tif"), stack, photometric="minisblack", planarconfig="contig")
        path.unlink()
    config = settings(
        root,
        tmp_path / "run",
        data={"bands": [4, 1, 3], **limits},
        train=SHORT,
        loss={"name": "fuzzy", "threshold": 0.5},
    )
    run = fuzzyseg.train(config, network=own, quiet=True).run
    result, logged = agrees_with_training(run, tmp_path)
    assert (result["coverage"], result["top1"]) == (logged["coverage"], logged["top1"])


def test_a_large_image_is_read_by_windows(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "MAX_PIXELS", 100_000)
    root = write_folder(tmp_path / "data", val=2)
    for kind, colours in (("images", "rgb"), ("masks", "minisblack")):
        small = Image.open(root / kind / "val" / "im16.png")
        array = np.array(small.resize((900, 1200), Image.Resampling.NEAREST))
        path = root / kind / "val" / "large.tif"
        tifffile.imwrite(path, array, photometric=colours, compression="zlib", tile=(128, 128))
    config = settings(
        root, tmp_path / "run", data={"max_megapixels": 1}, train=SHORT, loss={"name": "fuzzy", "threshold": 0.5}
    )
    run = fuzzyseg.train(config, network=own, quiet=True).run
    result, logged = agrees_with_training(run, tmp_path)
    assert result["images"] == 3
    assert (result["coverage"], result["top1"]) == (logged["coverage"], logged["top1"])
