"""A training on files as others publish them: values with a meaning, several roots, images from elsewhere."""

import json
from functools import partial

import numpy as np
import pytest
from PIL import Image

import fuzzyseg
from fuzzyseg.config.load import read_yaml
from fuzzyseg.data.datasets.public import LABELS as CLASSES
from fuzzyseg.experiment import evaluate
from support.tiny_data import settings
from support.tiny_network import TinyNetwork

own = partial(TinyNetwork, classes=19)


def put(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture
def roots(tmp_path):
    """Cityscapes by label ids, a folder with the same classes the other way round, and a folder of photographs."""
    rng = np.random.default_rng(0)
    ids = np.array([0, *CLASSES.values()], np.uint8)

    def picture():
        return rng.integers(0, 255, (24, 32, 3)).astype(np.uint8)

    for number in range(6):
        split, stem = ("val" if number > 3 else "train"), f"ulm_{number:06}_000019"
        put(tmp_path / f"city/leftImg8bit/{split}/ulm/{stem}_leftImg8bit.png", picture())
        put(tmp_path / f"city/gtFine/{split}/ulm/{stem}_gtFine_labelIds.png", rng.choice(ids, (24, 32)))
        put(tmp_path / f"more/images/{number}.png", picture())
        put(tmp_path / f"more/masks/{number}.png", rng.integers(0, 19, (24, 32)).astype(np.uint8))
        put(tmp_path / f"photos/{number}.jpg", picture())
    names = ", ".join(reversed(CLASSES))
    (tmp_path / "more/dataset.yaml").write_text(f"classes: [{names}]\nignore_index: 3\n")
    return tmp_path


def test_training_and_scoring_with_all_of_them(roots, monkeypatch):
    monkeypatch.chdir(roots)
    config = settings("city", roots / "run", train={"steps": 1, "evaluate": False})
    config["data"] = {"root": "city", "labelled": "8", "more": "more", "unlabelled_from": "photos/*.jpg"}
    fuzzyseg.train(config, network=own, quiet=True)
    split = json.loads((roots / "run/split.json").read_text())
    assert len(split["labelled"]) == 8
    assert {name.split("/")[0] for name in split["labelled"]} == {"train", "more"}
    assert len(split["unlabelled"]) == 4 + 6 + 6 - 8
    assert sum(name.startswith("unlabelled/") for name in split["unlabelled"]) == 6
    assert split["val"] == ["val/ulm/ulm_000004_000019", "val/ulm/ulm_000005_000019"]
    stored = read_yaml(roots / "run/config.yaml")["data"]
    assert stored["more"] == [str(roots / "more")]
    assert stored["unlabelled_from"] == [str(roots / "photos/*.jpg")]
    # Scores: from any folder, without the photographs, by the meaning of the values; 0 is no class of Cityscapes.
    monkeypatch.chdir(roots / "run")
    for path in (roots / "photos").iterdir():
        path.unlink()
    score = evaluate(roots / "run", network=own)
    masks = [np.array(Image.open(path)) for path in sorted((roots / "city/gtFine/val/ulm").iterdir())]
    assert (score["images"], score["pixels"]) == (2, sum(int((mask > 0).sum()) for mask in masks))
    assert list(score["per_class"]) == list(CLASSES)
    labelled = evaluate(roots / "run", split="train", network=own)
    expected = 0
    for name in split["labelled"]:
        mine = roots / f"more/masks/{name.split('/')[-1]}.png"
        theirs = roots / f"city/gtFine/{name}_gtFine_labelIds.png"
        mask = np.array(Image.open(mine if name.startswith("more") else theirs))
        expected += int((mask != (3 if name.startswith("more") else 0)).sum())
    assert labelled["pixels"] == expected


def test_masks_of_unlabelled_sources_are_never_opened(roots, monkeypatch):
    for path in roots.glob("city/gtFine/train/ulm/*.png"):
        if "000003" in path.name:
            path.write_bytes(b"damaged")
    (roots / "list.txt").write_text("train/ulm/ulm_000000_000019\n")
    config = settings(roots / "city", roots / "run", train={"steps": 2, "evaluate": False})
    config["data"] = {"root": str(roots / "city"), "labelled": str(roots / "list.txt")}
    fuzzyseg.train(config, network=own, quiet=True)
