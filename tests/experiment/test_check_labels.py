"""`check --model`: wrong masks are found by a model, the worst first."""

import json
import shutil

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from fuzzyseg.cli import app
from fuzzyseg.config import ConfigError, validate
from fuzzyseg.experiment import check_labels as module
from fuzzyseg.experiment.check_labels import check_labels
from fuzzyseg.inference import Predictor
from support.small_images import card, write

CLASSES = ["low", "middle", "high"]


class Grey(nn.Module):
    """Class 0, 1 or 2 by brightness; undecided between two classes at brightness 96 and 160."""

    def forward(self, image):
        level = 255 * image[:, :1]
        return torch.cat([-((level - centre) ** 2) / 400 for centre in (64.0, 128.0, 192.0)], 1)


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Five images of stripes with masks; the model is `Grey`."""
    model = Predictor(Grey(), card(CLASSES, mean=[0.0] * 3, std=[1.0] * 3))
    monkeypatch.setattr(module, "load", lambda *_, **__: model)
    for name in "abcde":
        mask = np.repeat(np.arange(3, dtype=np.uint8), 10)[None].repeat(20, 0)
        write(tmp_path / "data/images/train" / f"{name}.png", (64 + 64 * mask)[..., None].repeat(3, 2))
        write(tmp_path / "data/masks/train" / f"{name}.png", mask)
    (tmp_path / "data/dataset.yaml").write_text("classes: [low, middle, high]\nignore_index: 255\n")
    return tmp_path / "data"


def data_config(data, **given):
    return validate({"data": {"root": str(data), **given}})


def relabel(data, name, pixels, value, *, image=None):
    path = data / "masks/train" / f"{name}.png"
    from PIL import Image

    mask = np.array(Image.open(path))
    mask[pixels] = value
    write(path, mask)
    if image is not None:
        write(data / "images/train" / f"{name}.png", image)


def test_planted_wrong_masks_come_first_with_their_confusion(data):
    relabel(data, "d", np.s_[:, 10:20], 0)  # a third
    relabel(data, "b", np.s_[:5, 20:], 1)  # a twelfth
    result, compared = check_labels("run", data_config(data))
    assert compared == 5
    assert [(each["image"].rpartition("/")[2], each["label"], each["prediction"]) for each in result] == [
        ("d", "low", "middle"),
        ("b", "middle", "high"),
    ]
    assert [each["share"] for each in result] == pytest.approx([1 / 3, 1 / 12])


def test_the_share_is_of_the_labelled_pixels(data):
    """Of an image that is labelled for a third and wrong in half of that, before one that is wrong in a quarter."""
    relabel(data, "a", np.s_[:, 10:], 255)
    relabel(data, "a", np.s_[:, :5], 2)
    relabel(data, "c", np.s_[:15, :10], 1)
    result, _ = check_labels("run", data_config(data))
    assert [each["share"] for each in result] == pytest.approx([1 / 2, 1 / 4])
    assert [each["image"].rpartition("/")[2] for each in result] == ["a", "c"]


def test_an_undecided_model_contradicts_nothing(data):
    grey = np.full((20, 30, 3), 97, np.uint8)  # a little nearer to `middle`
    relabel(data, "a", np.s_[:], 0, image=grey)
    assert check_labels("run", data_config(data)) == ([], 5)


def test_the_most_frequent_confusion_is_that_of_one_pair(data):
    relabel(data, "a", np.s_[:, :10], 1)  # 10 columns of `low`
    relabel(data, "a", np.s_[:, 10:14], 2)
    result, _ = check_labels("run", data_config(data))
    assert result[0]["share"] == pytest.approx(14 / 30) and result[0]["most"] == pytest.approx(10 / 30)
    assert (result[0]["label"], result[0]["prediction"]) == ("middle", "low")


def test_other_classes_are_refused(data):
    (data / "dataset.yaml").write_text("classes: [a, b, c]\nignore_index: 255\n")
    with pytest.raises(ConfigError, match="classes"):
        check_labels("run", data_config(data))


def test_settings_of_the_check_hold_for_the_comparison(data):
    """Value 2 is declared void, and another root has the wrong masks."""
    (data / "dataset.yaml").unlink()
    relabel(data, "d", np.s_[:], 2)
    more = shutil.copytree(data, data.parent / "more")
    given = {"classes": CLASSES, "ignore_index": 2, "more": [str(more)]}
    relabel(more, "d", np.s_[:, :10], 1)
    rows, compared = check_labels("run", data_config(data, **given))
    assert compared == 9
    assert [(row["label"], row["share"]) for row in rows] == [("middle", 1.0)]


def test_the_command_prints_a_table_after_the_check(data):
    relabel(data, "d", np.s_[:, 10:20], 0)
    result = CliRunner().invoke(app, ["check", str(data), "--model", "run"])
    assert "1 of 5 masks" in result.stdout, result.output
    assert result.stdout.splitlines()[-1].split()[1:] == ["33.33%", "low", "->", "middle", "33.33%"]
    record = json.loads(CliRunner().invoke(app, ["check", str(data), "--model", "run", "--json"]).stdout)
    assert record["contradicted"][0]["prediction"] == "middle" and "findings" in record
    assert record["compared"] == 5


def test_a_damaged_mask_is_passed_over(data):
    relabel(data, "d", np.s_[:, 10:20], 0)
    (data / "masks/train/a.png").write_bytes((data / "masks/train/a.png").read_bytes()[:50])
    result, compared = check_labels("run", data_config(data))
    assert compared == 4 and len(result) == 1
