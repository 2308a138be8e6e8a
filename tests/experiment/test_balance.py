"""Rare classes are drawn as often as common ones, from the first step, and their crops show them."""

import numpy as np
import pytest
import torch
from PIL import Image

from fuzzyseg.config import validate
from fuzzyseg.data.labels import class_counts
from fuzzyseg.experiment import build, prepare_data, train
from fuzzyseg.losses import SupervisedLoss
from fuzzyseg.methods import METHODS, Facts
from support.tiny_data import loader_of, material_of, settings
from support.tiny_network import TinyNetwork


@pytest.fixture
def rare(tmp_path):
    """Twelve images; class 2 in one of them, in one corner."""
    for kind in ("images", "masks"):
        (tmp_path / "data" / kind).mkdir(parents=True)
    for number in range(12):
        mask = np.full((40, 40), number % 2, np.uint8)
        if number == 7:
            mask[36:, 36:] = 2
        Image.fromarray(mask).save(tmp_path / "data" / "masks" / f"{number:02d}.png")
        Image.fromarray(np.stack([mask * 80] * 3, -1)).save(tmp_path / "data" / "images" / f"{number:02d}.png")
    return tmp_path


def drawn(rare, balance, steps=60):
    data = {"labelled": None, "val": "none", "balance": balance}
    train = {"crop": [8, 8], "batch": 2, "workers": 0}
    config = validate(
        settings(
            rare / "data", rare / "x", data=data, train=train, method={"name": "supervised"}, loss={"name": "paper"}
        )
    )
    material = material_of(config)
    method = METHODS["supervised"](TinyNetwork, SupervisedLoss("ce"), None, METHODS["supervised"].Config(), Facts(3))
    loader = loader_of(config, material, method)
    batches = [step[0]["labelled"] for step in loader.batches(0, steps)]
    masks = torch.cat([batch.mask for batch in batches])
    return (
        [name for batch in batches for name in batch.name],
        torch.cat([b.drawn_for for b in batches]),
        masks,
        material,
    )


def test_weights_are_even_over_the_images_of_a_class(rare):
    weights = drawn(rare, "none", 1)[3].class_weights
    assert weights.sum(1).tolist() == pytest.approx([1, 1, 1])
    assert (weights[2] > 0).sum() == 1


def test_images_of_a_rare_class_come_as_often_as_others(rare):
    names, classes, _masks, _ = drawn(rare, "images")
    assert classes.bincount(minlength=3).min() > 25  # of 120, from the first step on
    assert classes[:12].min() >= 0
    share = sum(name.endswith("07") for name in names) / len(names)
    assert 0.3 < share < 0.6  # for class 2 always, for class 1 one time in six
    plain, none, _, _ = drawn(rare, "none")
    assert sum(name.endswith("07") for name in plain) == 10  # each image once an epoch
    assert (none == -1).all()


def test_crops_show_the_class_they_were_drawn_for(rare):
    _, classes, masks, _ = drawn(rare, "crops")
    shown = [(mask == expected).any() for mask, expected in zip(masks, classes.tolist(), strict=True)]
    assert all(shown)
    _, classes, masks, _ = drawn(rare, "images")
    rare_ones = [(m == 2).any() for m, expected in zip(masks, classes.tolist(), strict=True) if expected == 2]
    assert sum(rare_ones) < 0.7 * len(rare_ones)


@pytest.mark.parametrize(
    ("balance", "classes", "sentence"),
    [
        ("none", None, None),
        ("images", None, "labelled images are drawn for each of the 3 classes equally often"),
        (
            "crops",
            ["a", "b", "c", "never"],
            "labelled images are drawn for each of the 3 of 4 classes in the labelled images equally often, and "
            "cropped around that class",
        ),
    ],
)
def test_training_says_for_how_many_classes_it_draws(rare, capsys, balance, classes, sentence):
    data = {"labelled": None, "val": "none", "balance": balance, "classes": classes}
    sizes = {"crop": [32, 32], "batch": 2, "steps": 1}
    given = settings(rare / "data", rare / "run", data=data, train=sizes, method={"name": "supervised"})
    given["loss"]["name"] = "paper"
    train(given | {"network": {"encoder": "resnet18", "arch": "Unet", "weights": "none"}})
    said = [line for line in capsys.readouterr().out.splitlines() if "balance" in line]
    assert said == ([f"data.balance={balance}: {sentence}"] if sentence else [])


def test_the_masks_are_looked_at_once_for_the_draws_and_the_sentence(rare, monkeypatch):
    looked = []

    def class_presence(items, **options):
        looked.append(len(items))
        return class_counts.class_presence(items, **options)

    monkeypatch.setattr(prepare_data, "class_presence", class_presence)
    result = drawn(rare, "crops", 1)[3]
    assert prepare_data.say_balance(result, "crops")
    assert looked == [12]


def test_automatic_class_weights_reach_the_loss(rare, monkeypatch):
    built = []

    def supervised(**options):
        built.append(SupervisedLoss(**options))
        return built[0]

    monkeypatch.setattr(build, "SupervisedLoss", supervised)
    sizes = {"crop": [32, 32], "batch": 2, "steps": 1, "evaluate": False}
    data = {"labelled": None, "val": "none"}
    given = settings(rare / "data", rare / "run", data=data, train=sizes, method={"name": "supervised"})
    given["loss"]["name"] = "paper"
    given |= {"supervised": {"class_weights": "auto"}}
    train(given | {"network": {"encoder": "resnet18", "arch": "Unet", "weights": "none"}}, quiet=True)
    # frequencies: 6 of 6 images; 6 of 6 but a corner of 16 of 1,600 pixels in one; that corner in its image
    shares = np.array([1, (6 * 1600 - 16) / (6 * 1600), 16 / 1600])
    assert built[0].class_weights.tolist() == pytest.approx((np.median(shares) / shares).tolist())
