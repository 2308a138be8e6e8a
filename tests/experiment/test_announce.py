"""What the end of a training says of its validation images."""

import json
from types import SimpleNamespace

import pytest
from torch import nn

from fuzzyseg.data import Item
from fuzzyseg.engine import Outcome
from fuzzyseg.experiment.announce import say_copies, summary
from fuzzyseg.run import RunFolder
from fuzzyseg.run.logs import write_json


def told(folder, *, held_out=False, **last):
    run = RunFolder(folder)
    lists = {"labelled": ["a"], "unlabelled": [], "val": ["b"]}
    write_json(run.split, {**lists, "held_out": held_out})
    last = {"miou": 0.5, "step": 4, **last}
    return summary(run, Outcome(4, True, False, last, None, nn.Identity()), score="miou")


def test_the_difference_that_few_images_can_show_is_told(tmp_path):
    text = told(tmp_path, images=9, miou_error=0.0312)
    assert "9 validation images" in text and "6.2 points" in text
    assert "points" not in told(tmp_path, images=20, miou_error=0.0312)
    assert "points" not in told(tmp_path, images=1, miou_error=None)


@pytest.mark.parametrize("held_out", [True, False])
def test_that_held_out_images_can_be_learnt_from_is_told(tmp_path, held_out):
    assert ("--val none" in told(tmp_path, held_out=held_out, images=30)) is held_out


def test_an_interrupted_training_says_how_to_continue_alone(tmp_path):
    run = RunFolder(tmp_path)
    write_json(run.split, json.loads('{"labelled": [], "unlabelled": [], "val": [], "held_out": true}'))
    text = summary(run, Outcome(2, False, True, None, None, nn.Identity()), score="miou")
    assert "--resume" in text and "--val none" not in text


def test_training_images_with_the_content_of_a_validation_image_are_named(tmp_path):
    middle = bytes(10_000)
    contents = {"val": b"one" + middle + b"end", "copy": b"one" + middle + b"end", "longer": b"three",
                "as_long": b"two" + middle + b"end",
                "same_ends": b"one" + middle[:5000] + b"x" + middle[5001:] + b"end"}  # fmt: skip
    items = {}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        items[name] = Item(tmp_path / name, None, name)
    others = [items["as_long"], items["longer"], items["same_ends"]]
    assert say_copies(SimpleNamespace(val=[items["val"]], all_=others)) == []
    (text,) = say_copies(SimpleNamespace(val=[items["val"]], all_=[*others, items["copy"]]))
    assert str(tmp_path / "copy") in text and "as_long" not in text
