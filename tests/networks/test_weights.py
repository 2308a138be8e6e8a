"""Weights files, whatever their keys are called, reach the encoder; those that do not fit say so."""

from pathlib import Path

import pytest
import segmentation_models_pytorch as smp
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from torch import nn

from fuzzyseg.networks import NetworkFactory, build_network, weights
from fuzzyseg.networks.segmenter import Segmenter
from fuzzyseg.networks.weights import load_encoder, load_network, weights_statistics

SHARED = Path(__file__).resolve().parents[3] / "shared" / "weights" / "mobilenet_v2_imagenet.safetensors"
needs_shared = pytest.mark.skipif(not SHARED.is_file(), reason=f"{SHARED.name} is not beside the repository")


def encoder(name: str = "resnet18", channels: int = 3) -> nn.Module:
    return smp.encoders.get_encoder(name, in_channels=channels, weights=None)


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {k: torch.rand_like(v) if v.is_floating_point() else v for k, v in encoder().state_dict().items()}


def same(module: nn.Module, state: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(v, state[k]) for k, v in module.state_dict().items())


def renamed(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + k: v for k, v in state.items()}


@pytest.mark.parametrize(
    "prefix", ["", "encoder.", "module.", "backbone.", "module.encoder.", "model.backbone.", "smp.encoder."]
)
def test_prefixes(tmp_path: Path, state: dict, prefix: str) -> None:
    file = tmp_path / "weights.safetensors"
    save_file(renamed(state, prefix) | {"fc.weight": torch.zeros(3), "decoder.x.weight": torch.zeros(2)}, file)
    target = encoder()
    load_encoder(target, file)
    assert same(target, state)


@pytest.mark.parametrize(
    "wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}, lambda s: {"model": {"state_dict": s}}]
)
def test_torch_files(tmp_path: Path, state: dict, wrap) -> None:
    torch.save(wrap(state), tmp_path / "weights.pth")
    target = encoder()
    load_encoder(target, tmp_path / "weights.pth")
    assert same(target, state)


def test_features_prefix_may_be_off(tmp_path: Path) -> None:
    source, target = encoder("mobilenet_v2"), encoder("mobilenet_v2")
    save_file({k.removeprefix("features."): v for k, v in source.state_dict().items()}, tmp_path / "w.safetensors")
    load_encoder(target, tmp_path / "w.safetensors")
    assert same(target, source.state_dict())


def test_timm_names_of_a_whole_classifier(tmp_path: Path) -> None:
    import timm

    source = timm.create_model("convnext_atto", pretrained=False)
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    target = encoder("tu-convnext_atto")
    load_encoder(target, tmp_path / "w.safetensors")
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        result = target.eval()(image)[-1]
        expected = source.eval().forward_intermediates(image, intermediates_only=True)[-1]
    torch.testing.assert_close(result, expected)


def test_counters_may_be_missing(tmp_path: Path, state: dict) -> None:
    save_file({k: v for k, v in state.items() if "num_batches" not in k}, tmp_path / "w.safetensors")
    target = encoder()
    load_encoder(target, tmp_path / "w.safetensors")
    assert torch.equal(target.conv1.weight, state["conv1.weight"])


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_first_convolution_is_adapted_as_smp_does(tmp_path: Path, state: dict, channels: int) -> None:
    save_file(state, tmp_path / "w.safetensors")
    target, expected = encoder(channels=channels), encoder()
    expected.load_state_dict(dict(state))
    expected.set_in_channels(channels, pretrained=True)
    load_encoder(target, tmp_path / "w.safetensors")
    assert same(target, expected.state_dict())


def spoil(state: dict, how: str) -> dict:
    state = dict(state)
    if how == "missing":
        del state["layer1.0.conv1.weight"], state["layer1.0.bn1.weight"]
    elif how == "unknown":
        state["layer3.7.conv1.weight"] = torch.zeros(1)
    else:
        state["layer1.0.conv1.weight"] = torch.zeros(64, 64, 1, 1)
    return state


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("missing", r"missing: 2 \(layer1.0.conv1.weight, layer1.0.bn1.weight\)"),
        ("unknown", r"unknown: 1 \(layer3.7.conv1.weight\)"),
        ("shape", r"layer1.0.conv1.weight has shape \(64, 64, 1, 1\) in the file and \(64, 64, 3, 3\) in the network"),
    ],
)
def test_keys_that_do_not_fit_are_named(tmp_path: Path, state: dict, how: str, words: str) -> None:
    save_file(spoil(state, how), tmp_path / "w.safetensors")
    target = encoder()
    before = target.conv1.weight.clone()
    with pytest.raises(ValueError, match=rf"w.safetensors do not fit: {words}.*--encoder"):
        load_encoder(target, tmp_path / "w.safetensors")
    assert torch.equal(before, target.conv1.weight)


def test_files_that_are_no_weights(tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_text("hello")
    (tmp_path / "text.pth").write_text("hello")
    torch.save({"a": 1}, tmp_path / "numbers.pth")
    torch.save(nn.Linear(1, 1), tmp_path / "module.pth")
    for name, words in {
        "text.safetensors": "cannot be read",
        "text.pth": "weights .*text.pth",
        "numbers.pth": "contains no named tensors",
        "module.pth": "contains objects other",
        "none.pth": "no such file",
    }.items():
        with pytest.raises(ValueError, match=words) as error:
            load_encoder(encoder(), tmp_path / name)
        assert "weights_only" not in str(error.value)  # torch's advice to run what is in the file


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "is empty"), (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
     (b"\n<!DOCTYPE html><html>", "HTML or XML page"), (b"<html>Sign in", "HTML or XML page")],
)  # fmt: skip
def test_failed_downloads_are_named(tmp_path: Path, suffix: str, content: bytes, words: str) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    readers = [lambda: load_encoder(encoder(), path), lambda: load_network(encoder(), path)]
    readers += [lambda: weights_statistics(str(path), "resnet18")] * (suffix == ".safetensors")
    (tmp_path / f"{path.name}.sha256").write_text("0" * 64)
    for read in readers:
        with pytest.raises(ValueError, match=f"{path.name}: .*{words}"):
            read()


@needs_shared
def test_given_weights_and_their_statistics() -> None:
    assert weights_statistics(str(SHARED), "mobilenet_v2") == ([0.5] * 3, [0.5] * 3)
    network = build_network("FPN", "mobilenet_v2", weights=str(SHARED), channels=3, classes=11)
    other = build_network("FPN", "mobilenet_v2", weights="none", channels=3, classes=11)
    path = "features.1.conv.1.weight"
    from safetensors.torch import load_file

    assert torch.equal(network.encoder.state_dict()[path], load_file(SHARED)[path])
    assert not torch.equal(other.encoder.state_dict()[path], load_file(SHARED)[path])
    assert network.smp.config["encoder_weights"] is None


def test_statistics(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    save_file({"a": torch.zeros(1)}, file, metadata={"mean": "0.1, 0.2,0.6", "std": "0.2,0.4,0.6"})
    assert weights_statistics("none", "resnet18") is None
    assert weights_statistics(str(file), "resnet18") == ([0.1, 0.2, 0.6], [0.2, 0.4, 0.6])
    assert weights_statistics(str(file), "resnet18", 4) == ([0.1, 0.2, 0.6, 0.1], [0.2, 0.4, 0.6, 0.2])
    mean, std = weights_statistics(str(file), "resnet18", 1)
    assert (mean, std) == (pytest.approx([0.3]), pytest.approx([0.4]))
    save_file({"a": torch.zeros(1)}, file)
    assert weights_statistics(str(file), "resnet18") is None
    save_file({"a": torch.zeros(1)}, file, metadata={"mean": "a,b", "std": "1,1"})
    with pytest.raises(ValueError, match="must be numbers"):
        weights_statistics(str(file), "resnet18")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The hub's cache is empty and every request fails at once; the requests are counted."""
    asked: list[str] = []

    class Session:
        def head(self, url: str, **_: object) -> None:
            asked.append(url)
            raise OSError("no network")

    monkeypatch.setattr(weights, "get_session", Session)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return asked


@pytest.mark.parametrize("name", ["resnet18", "tu-resnet18"])
def test_without_network_one_request_then_the_alternatives(offline: list[str], name: str) -> None:
    with pytest.raises(ValueError, match=rf"ImageNet weights of encoder '{name}'.*--weights FILE.*--weights none"):
        build_network("FPN", name, weights="imagenet", channels=3, classes=2)
    assert len(offline) == 1
    assert not constants.HF_HUB_OFFLINE


def test_statistics_without_network(offline: list[str]) -> None:
    with pytest.raises(ValueError, match="--weights none"):
        weights_statistics("imagenet", "resnet18")


def build(classes: int = 3) -> Segmenter:
    return build_network("FPN", "mobilenet_v2", weights="none", channels=3, classes=classes)


def test_factory_loads_the_nth_file_on_the_nth_call(tmp_path: Path) -> None:
    sources = [build(), build()]
    sources[0].smp.save_pretrained(tmp_path / "run" / "model")
    save_file(sources[1].state_dict(), tmp_path / "second.safetensors")
    factory = NetworkFactory(build, [tmp_path / "run", tmp_path / "second.safetensors"])
    made = [factory(), factory(), factory()]
    for network, source in zip(made, sources, strict=False):
        assert same(network, source.state_dict())
    assert not same(made[2], sources[0].state_dict())
    assert not same(made[2], sources[1].state_dict())


def test_network_weights_of_other_classes(tmp_path: Path) -> None:
    build(4).smp.save_pretrained(tmp_path / "model")
    shapes = r"segmentation_head.0.weight has shape \(4, 128, 1, 1\) in the file and \(3, 128, 1, 1\)"
    with pytest.raises(ValueError, match=f"model.safetensors do not fit: {shapes}"):
        load_network(build(3), tmp_path / "model")


def test_an_encoder_is_no_network(tmp_path: Path) -> None:
    save_file(encoder("mobilenet_v2").state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"missing: \d+ \(encoder.features"):
        load_network(build(), tmp_path / "w.safetensors")


def test_init_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such file"):
        NetworkFactory(build, [tmp_path / "gone"])
    with pytest.raises(ValueError, match=r"without model.safetensors or model/model.safetensors"):
        NetworkFactory(build, [tmp_path])


def test_weights_of_another_encoder_name_the_one_they_look_like(tmp_path):
    save_file(encoder("mobilenet_v2").state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"looks like --encoder mobilenet_v2$"):
        load_encoder(encoder(), tmp_path / "w.safetensors")
    save_file(
        {key: value[:1].clone() for key, value in encoder().state_dict().items() if value.dim()},
        tmp_path / "w.safetensors",
    )
    with pytest.raises(ValueError) as caught:
        load_encoder(encoder(), tmp_path / "w.safetensors")
    assert "looks like" not in str(caught.value)
