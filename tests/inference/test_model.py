"""A saved model is whole, loads elsewhere, and gives the same logits."""

import json
from pathlib import Path

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import nn

from fuzzyseg.data import DataError
from fuzzyseg.inference import load, read_card, save_model
from fuzzyseg.inference import model as room
from fuzzyseg.networks import Segmenter, build_network
from fuzzyseg.ops.resize import resize_logits
from support.small_images import PointNetwork, card, noise, predictor

CARD = card(
    colours=[(1, 2, 3), (4, 5, 6), (7, 8, 9)],
    ignore_index=11,
    image_size=(40, 50),
    arch="FPN",
    encoder="mobilenet_v2",
    method="cps",
    loss="fuzzy",
    step=7,
)


def network(arch: str = "FPN", encoder: str = "mobilenet_v2", **options: object) -> Segmenter:
    built = build_network(arch, encoder, weights="none", channels=3, classes=3, options=options)
    return built.to(memory_format=torch.channels_last).eval()


@pytest.mark.parametrize(
    ("arch", "encoder", "options"),
    [
        ("FPN", "mobilenet_v2", {"decoder_pyramid_channels": 32, "decoder_segmentation_channels": 32}),
        ("DeepLabV3Plus", "mobilenet_v2", {"decoder_atrous_rates": [2, 4, 6], "decoder_channels": 16}),
        ("Unet", "tu-resnet18", {"decoder_channels": [32, 16, 16, 8, 8]}),
        ("DPT", "tu-vit_tiny_patch16_224", {}),
    ],
)
def test_smp_loads_it_and_gives_the_same_logits(tmp_path: Path, arch: str, encoder: str, options: dict) -> None:
    model = network(arch, encoder, **options)
    save_model(tmp_path / "run" / "model", model, card=CARD)
    theirs = smp.from_pretrained(str(tmp_path / "run" / "model")).eval()
    ours = load(tmp_path / "run").network
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = model(image)
        torch.testing.assert_close(theirs(image), resize_logits(expected, (64, 96)), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(ours(image), expected, rtol=1e-3, atol=1e-4)  # another order in memory
    assert all(torch.equal(v, theirs.state_dict()[k]) for k, v in model.smp.state_dict().items())


def test_every_way_to_name_it(tmp_path: Path) -> None:
    model = network()
    save_model(tmp_path / "run" / "model", model, card=CARD)
    save_model(tmp_path / "run" / "best", network(), card=card(step=3))
    image = noise(33, 44)
    expected = predictor(model, image_size=(40, 50)).logits(image)
    for path in ("run", "run/model", "run/model/model.safetensors"):
        loaded = load(tmp_path / path)
        assert loaded.card == CARD
        torch.testing.assert_close(loaded.logits(image), expected)
    assert load(tmp_path / "run" / "best").card.step == 3


def test_a_card_says_how_images_are_resized(tmp_path: Path) -> None:
    for size, words in (((48, 64), ("48x64", "bilinearly", "aspect ratio")), (None, ("none",))):
        given = card(image_size=size)
        given.write(tmp_path)
        text = json.loads((tmp_path / "fuzzyseg.json").read_text())["resizing"]
        assert all(word in text for word in words)
        assert read_card(tmp_path) == given


def test_card_holds_all_in_json(tmp_path: Path) -> None:
    save_model(tmp_path / "model", network(), card=CARD)
    values = json.loads((tmp_path / "model" / "fuzzyseg.json").read_text())
    assert values["classes"] == ["class0", "class1", "class2"]
    assert values["image_size"] == [40, 50]
    assert read_card(tmp_path) == read_card(str(tmp_path / "model")) == CARD
    assert {f.name for f in (tmp_path / "model").iterdir()} == {
        "README.md",
        "config.json",
        "fuzzyseg.json",
        "model.safetensors",
        "model.safetensors.sha256",
    }
    readme = (tmp_path / "model" / "README.md").read_text()
    assert "class0, class1, class2" in readme
    assert "license" not in readme


def test_damaged_weights_are_detected(tmp_path: Path) -> None:
    save_model(tmp_path / "model", network(), card=CARD)
    file = tmp_path / "model" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-9] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.safetensors: are damaged .*model\.safetensors\.sha256"):
        load(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors.sha256").unlink()
    load(tmp_path / "model")


def test_saving_again_replaces_all(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    save_model(folder, network(), card=CARD)
    (folder / "stray.txt").write_text("old")
    second = network()
    save_model(folder, second, card=card(step=9))
    assert not (folder / "stray.txt").exists()
    assert [f.name for f in tmp_path.iterdir()] == ["model"]
    loaded = load(folder)
    assert loaded.card.step == 9
    assert torch.equal(loaded.network.smp.segmentation_head[0].weight, second.smp.segmentation_head[0].weight)


def test_failing_to_write_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_model(tmp_path / "model", network(), card=CARD)

    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(room, "save_network", full)
    with pytest.raises(OSError, match="no space"):
        save_model(tmp_path / "model", network(), card=card(step=9))
    assert load(tmp_path / "model").card == CARD


def test_a_network_of_ones_own(tmp_path: Path) -> None:
    source = PointNetwork()
    save_model(tmp_path / "model", source, card=card())
    image = noise(9, 11)
    with pytest.raises(DataError, match="custom network; give its factory"):
        load(tmp_path / "model")
    loaded = load(tmp_path / "model", network=PointNetwork)
    torch.testing.assert_close(loaded.logits(image), predictor(source).logits(image))
    with pytest.raises(ValueError, match=r"encoder.weight has shape \(3, 3, 1, 1\) in the file and \(5, 3, 1, 1\)"):
        load(tmp_path / "model", network=lambda: PointNetwork(classes=5))


def test_shared_weights_of_ones_own_network(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Conv2d(3, 3, 1)
            self.again = self.encoder

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.again(self.encoder(image))

    source = Tied()
    save_model(tmp_path / "model", source, card=card())
    image = noise(9, 11)
    loaded = load(tmp_path / "model", network=Tied)
    torch.testing.assert_close(loaded.logits(image), predictor(source).logits(image))


def test_what_is_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone: found no such file or folder; expected a run folder"):
        load(tmp_path / "gone")
    with pytest.raises(DataError, match=r"found no fuzzyseg\.json and no model/fuzzyseg\.json"):
        load(tmp_path)
    (tmp_path / "last.pt").touch()
    with pytest.raises(DataError, match="training is not finished"):
        load(tmp_path)
    assert read_card(tmp_path) is None


def test_a_card_of_another_number_of_classes_is_refused(tmp_path: Path) -> None:
    save_model(tmp_path / "model", network(), card=CARD)
    file = tmp_path / "model" / "fuzzyseg.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"classes": [*content["classes"], "one more"]}))
    with pytest.raises(DataError, match="its network has"):
        load(tmp_path)


@pytest.mark.parametrize("file", ["fuzzyseg.json", "config.json"])
@pytest.mark.parametrize("text", ["{", "[]", "{}", "[" * 9000])
def test_damaged_files_are_named(tmp_path: Path, file: str, text: str) -> None:
    save_model(tmp_path / "model", network(), card=CARD)
    (tmp_path / "model" / file).write_text(text)
    with pytest.raises(DataError, match=f"{file}.*copy the model folder again"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("encoder_weights", "imagenet"),
        ("encoder_name", "tu-hf-hub:someone/something"),
        ("encoder_name", "tu-hf_hub:someone/something"),
        ("encoder_name", "timm/resnet18.a1_in1k"),
        ("pretrained_cfg", {"hf_hub_id": "someone/something"}),
        ("checkpoint_path", "other.pth"),
        ("classes", -1),  # torch raises a RuntimeError
    ],
)
def test_a_model_folder_asks_no_hub_for_what_it_names(tmp_path, monkeypatch, key, value):
    save_model(tmp_path / "model", network(), card=CARD)
    config = tmp_path / "model" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), key: value}))

    def connect(*arguments, **options):
        raise AssertionError("a connection was tried")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(f"socket.socket.{name}", connect)
    monkeypatch.setattr("socket.getaddrinfo", connect)
    if key == "encoder_weights":  # the weights of the folder are all that is needed
        assert load(tmp_path).card == CARD
    else:
        with pytest.raises(DataError, match="does not describe a network"):
            load(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("classes", "abc"),
        ("classes", ["one"]),
        ("classes", [1, 2, 3]),
        ("channels", 0),
        ("channels", "three"),
        ("mean", 0.5),
        ("mean", [0.5]),
        ("mean", [float("nan")] * 3),
        ("std", [0.0, 0.2, 0.2]),
        ("std", ["a", "b", "c"]),
        ("crop", [-1, 5]),
        ("image_size", [1.5, 2]),
        ("bands", [0, 1, 2]),
        ("bands", "all"),
        ("colours", [["r", "g", "b"]] * 3),
        ("levels", {"low": ["x"], "high": ["y"]}),
        ("encoding", {"colours": 3}),
        ("ignore_index", "void"),
        ("step", "last"),
    ],
)
def test_a_card_with_values_of_another_kind_is_named(tmp_path, key, value):
    CARD.write(tmp_path)
    card = tmp_path / "fuzzyseg.json"
    assert read_card(tmp_path) == CARD
    card.write_text(json.dumps({**json.loads(card.read_text()), key: value}))
    with pytest.raises(DataError, match=r"fuzzyseg\.json: is not a model card") as error:
        read_card(tmp_path)
    assert "\n" not in str(error.value)
