"""What is told of settings that change nothing, and of methods that cannot work as they are set."""

from __future__ import annotations

from functools import partial

import pytest
import torch

import fuzzyseg
from fuzzyseg.config import Config, ConfigError, validate
from fuzzyseg.experiment.build import build_method, notes_of, resolve
from fuzzyseg.losses import PIXEL_LOSSES, PixelLossModule, SupervisedLoss
from fuzzyseg.methods import METHODS, Facts, Progress
from support.tiny_data import settings, write_folder
from support.tiny_network import TinyNetwork, make_batch

own = partial(TinyNetwork, classes=3)
OTHER = {
    "cutmix_seg": {"distance": "kl", "unsupervised_weight": 3.0, "pixel_weight": 2.0},
    "mean_teacher": {"of": "logits", "consistency_weight": 3.0, "pixel_weight": 2.0},
    "pc2seg": {"consistency": "l2", "consistency_weight": 3.0, "unsupervised_weight": 2.0},
}


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.paper_only or method.pixel_only])
@pytest.mark.parametrize("loss", ["paper", "hard", "fuzzy"])
def test_a_methods_settings_that_are_named_as_idle_are_those_that_change_nothing(name, loss):
    assert OTHER[name].keys() == {*METHODS[name].paper_only, *METHODS[name].pixel_only}
    given = Config.model_validate({"method": {"name": name, **OTHER[name]}, "loss": {"name": loss}})
    idle = {option.removeprefix("method.") for option in resolve(given).idle}
    plain = losses(name, loss)
    assert {key for key, value in OTHER[name].items() if torch.equal(losses(name, loss, **{key: value}), plain)} == idle


def losses(name, loss, **options):
    """All losses of a step in the middle of a run, with a teacher that is not the student."""
    torch.manual_seed(0)
    pixel = None if loss == "paper" else PixelLossModule(PIXEL_LOSSES[loss], {}, 0.9)
    kind = METHODS[name]
    if name == "cutmix_seg":  # whose mask would leave no pixel of so unsure a teacher
        options["confidence"] = "drop"
    method = kind(lambda: TinyNetwork(norm="group"), SupervisedLoss("ce"), pixel, kind.Config(**options), Facts(5))
    if hasattr(method, "teacher"):
        with torch.no_grad():
            for number in method.teacher.parameters():
                number += 0.1 * torch.randn_like(number)
    batch = {
        key: make_batch(3, masks=stream.source == "labelled", view=stream.view, seed=place)
        for place, (key, stream) in enumerate(method.streams.items())
    }
    torch.manual_seed(1)
    return torch.stack(list(method(batch, Progress(5, 10)).losses.values())).detach()


def test_a_setting_that_stands_as_usual_is_not_named():
    config = Config.model_validate({"method": {"name": "cutmix_seg", "distance": "squared"}, "loss": {"name": "hard"}})
    assert resolve(config).idle == []


def test_gct_on_small_crops_says_that_nobody_teaches(tmp_path, capsys):
    config = settings(write_folder(tmp_path / "data"), tmp_path / "run", train={"steps": 1, "evaluate": False})
    config["method"] = {"name": "gct", "detector_width": 2}
    for crop, said in (([32, 64], True), ([32, 96], False)):
        config["train"]["crop"], config["out"] = crop, str(tmp_path / f"{crop[1]}")
        result = fuzzyseg.train(config, network=own).result
        assert ("--loss has no effect" in capsys.readouterr().out) == said
        assert ["--loss has no effect" in sentence for sentence in result["notes"]] == [True] * said


@pytest.mark.parametrize("name", ["fixmatch", "unimatch", "unimatch_v2", "ael", "cutmix_seg", "pseudoseg"])
def test_a_mask_under_which_fpl_is_cross_entropy_is_told(name):
    keeps = {
        "cutmix_seg": {"per_pixel": True},
        "pseudoseg": {"threshold": 0.95},
        "ael": {"threshold": 0.95, "confidence": "keep"},
    }
    options = keeps.get(name, {"confidence": "keep"})
    method = METHODS[name]

    def notes(loss, **changed):
        config = method.Config(**{**options, **changed})
        pixel = PixelLossModule(PIXEL_LOSSES[loss], {}, 0.9)
        made = method(
            lambda: TinyNetwork(norm="group"), SupervisedLoss("ce"), pixel, config, Facts(5, {"unlabelled": 4})
        )
        return made.notes((96, 96))

    assert ["is cross entropy" in sentence for sentence in notes("fuzzy")] == [True]
    assert notes("hard") == notes("fuzzy", threshold=0.8) == []
    if "confidence" in method.Config.model_fields:
        assert notes("fuzzy", confidence="drop") == []


@pytest.mark.parametrize(
    ("method", "arch", "options", "said"),
    [
        ({"name": "cps"}, "FPN", {}, []),
        (
            {"name": "cps", "cutmix": False},
            "FPN",
            {},
            ["(p up to 0.2); to disable it set network.decoder_dropout=0"],
        ),
        ({"name": "cps", "cutmix": False}, "FPN", {"decoder_dropout": 0.0}, []),
        ({"name": "fixmatch", "teacher": "ema"}, "DeepLabV3Plus", {}, []),
        (
            {"name": "fixmatch"},
            "DeepLabV3Plus",
            {},
            ["(p up to 0.5); to disable it set network.decoder_aspp_dropout=0"],
        ),
        ({"name": "unimatch"}, "Unet", {}, []),
        ({"name": "supervised"}, "DeepLabV3Plus", {}, []),
    ],
)
def test_dropout_in_pseudo_labels_is_told_by_the_setting_that_takes_it_away(method, arch, options, said):
    network = {"arch": arch, "encoder": "mobilenet_v2", "weights": "none", **options}
    config = validate({"method": method, "network": network, "train": {"crop": [64, 64]}})
    setup = resolve(config)
    result = [note for note in notes_of(setup, build_method(setup, Facts(5))) if "dropout" in note]
    assert len(result) == len(said)
    assert all(part in note for part, note in zip(said, result, strict=True))


def test_dropout_of_a_network_of_ones_own_is_told_where_a_run_keeps_its_notes(tmp_path, capsys):
    config = settings(write_folder(tmp_path / "data"), tmp_path / "run", train={"steps": 1, "evaluate": False})
    config["method"] = {"name": "unimatch"}
    for dropout, said in ((0.0, False), (0.3, True)):
        config["out"] = str(tmp_path / f"{dropout}")
        result = fuzzyseg.train(config, network=partial(own, dropout=dropout)).result
        assert ("to disable it build the network without dropout" in capsys.readouterr().out) == said
        assert ["(p up to 0.3)" in note for note in result["notes"] if "dropout" in note] == [True] * said


@pytest.mark.parametrize("network", [own, None])
def test_a_start_that_is_not_there_is_told_by_its_option(tmp_path, network):
    config = settings(write_folder(tmp_path / "data"), tmp_path / "run", init=[str(tmp_path / "nope")] * 2)
    with pytest.raises(ConfigError, match=r"--init: .*nope: found no such file"):
        fuzzyseg.train(config, network=network)
