"""Where the input statistics come from, what is said of the images, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from fuzzyseg.config import ConfigError, validate
from fuzzyseg.data import DataError
from fuzzyseg.experiment.build import resolve
from fuzzyseg.experiment.prepare_data import IMAGENET, input_statistics, say_sizes
from fuzzyseg.losses import SupervisedLoss
from fuzzyseg.methods import METHODS, Facts
from support.tiny_data import loader_of, material_of, settings, write_folder
from support.tiny_network import TinyNetwork


def config(tmp_path, **sections):
    return validate(settings(tmp_path / "data", tmp_path / "run", **sections))


def statistics(config):
    return input_statistics(config.data, resolve(config))


def test_statistics_are_given_or_the_weights_or_imagenets(tmp_path):
    assert statistics(config(tmp_path)) == IMAGENET
    file = tmp_path / "weights.safetensors"
    save_file({"x": torch.zeros(1)}, file, metadata={"mean": "0.5,0.4,0.3", "std": "0.1,0.2,0.3"})
    network = {"weights": str(file)}
    assert statistics(config(tmp_path, network=network)) == ([0.5, 0.4, 0.3], [0.1, 0.2, 0.3])
    data = {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}
    assert statistics(config(tmp_path, network=network, data=data))[0] == [0.0, 0.0, 0.0]


def test_half_or_misfitting_statistics_are_errors(tmp_path):
    with pytest.raises(ConfigError, match="both or neither"):
        statistics(config(tmp_path, data={"mean": [0.5]}))
    with pytest.raises(ConfigError, match="found 1 and 1 values for 3 channels"):
        statistics(config(tmp_path, data={"mean": [0.5], "std": [0.5]}))
    with pytest.raises(ConfigError, match="none available for 5 channels"):
        statistics(config(tmp_path, network={"channels": 5}))


def test_sizes_are_said_and_a_crop_of_mostly_padding_is_noticed(tmp_path):
    write_folder(tmp_path / "data")
    small = config(tmp_path)
    said = say_sizes(material_of(small), (16, 24))
    assert "images are 24x32" in said[0]
    assert "crops are 16x24" in said[0]
    assert len(said) == 2
    large = config(tmp_path, train={"crop": [64, 64]})
    assert "--crop 32x32" in say_sizes(material_of(large), (64, 64))[1]
    resized = config(tmp_path, data={"image_size": [48, 64]}, train={"crop": [64, 64]})
    said = say_sizes(material_of(resized), (64, 64), (48, 64))
    assert "read at 48x64" in said[0]
    assert len(said) == 2


def test_no_data_and_one_class_are_errors(tmp_path):
    values = settings(tmp_path / "data", tmp_path / "run")
    values["data"].pop("root")
    with pytest.raises(ConfigError, match="--data"):
        material_of(validate(values))
    write_folder(tmp_path / "data")
    (tmp_path / "data" / "dataset.yaml").write_text("classes: [only]\n")
    with pytest.raises(DataError, match="at least 2"):
        material_of(config(tmp_path))


def test_the_loader_draws_scales_as_asked(tmp_path):
    write_folder(tmp_path / "data")
    method = METHODS["supervised"](TinyNetwork, SupervisedLoss("ce"), None, METHODS["supervised"].Config(), Facts(3))
    asked = config(
        tmp_path,
        method={"name": "supervised"},
        loss={"name": "paper"},
        augment={"scale": [1.5, 2.0], "scale_draw": "halves"},
    )
    with pytest.raises(ValueError, match=r"augment\.scale_draw=halves needs a range around 1"):
        loader_of(asked, material_of(asked), method)
    with pytest.raises(ConfigError, match="found 'thirds'"):
        config(tmp_path, augment={"scale_draw": "thirds"})


@pytest.mark.parametrize(("split", "what"), [("train", "labelled"), ("val", "validation")])
@pytest.mark.parametrize("policy", ["cover", "random"])
def test_nothing_but_void_is_an_error_before_the_training(tmp_path, split, what, policy):
    write_folder(tmp_path / "data")
    paths = sorted((tmp_path / "data/masks" / split).iterdir())
    assert len(paths) > 1
    for path in paths[1:]:
        Image.fromarray(np.full_like(np.array(Image.open(path)), 255)).save(path)
    material_of(config(tmp_path, data={"policy": policy, "labelled": "12"}))
    mask = np.full_like(np.array(Image.open(paths[0])), 255)
    Image.fromarray(mask).save(paths[0])
    with pytest.raises(DataError, match=rf"all {what} masks is void: .*{paths[0].name}"):
        material_of(config(tmp_path, data={"policy": policy, "labelled": "12"}))
    mask[0, -1] = 1
    Image.fromarray(mask).save(paths[0])
    material_of(config(tmp_path, data={"policy": policy, "labelled": "12"}))
