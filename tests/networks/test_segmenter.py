"""A Segmenter gives what the model it wraps gives, but for the up-sampling."""

from functools import partial

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import nn

from fuzzyseg.networks import NETWORKS, NetworkFactory, Segmenter, build_network
from fuzzyseg.ops.resize import resize_logits

STRIDES = {"DPT": 2, "DeepLabV3": 8, "PSPNet": 8, "Unet": 1, "UnetPlusPlus": 1, "MAnet": 1, "Linknet": 1}
SMALL = {"Unet": {"decoder_channels": [32, 24, 16, 8, 8]}, "UnetPlusPlus": {"decoder_channels": [32, 24, 16, 8, 8]}}


def small(arch: str, **changes: object) -> Segmenter:
    encoder = "tu-vit_tiny_patch16_224" if arch == "DPT" else "mobilenet_v2"
    settings = {"weights": "none", "channels": 3, "classes": 5, "options": SMALL.get(arch)}
    return build_network(arch, encoder, **{**settings, **changes})


@pytest.mark.parametrize("arch", NETWORKS)
def test_logits_resized_are_the_models_own(arch: str) -> None:
    torch.manual_seed(0)
    network = small(arch).eval()
    size = (128, 160) if arch == "PAN" else (64, 96)
    image = torch.randn(2, 3, *size)
    with torch.no_grad():
        logits, expected = network(image), network.smp(image)
    stride = STRIDES.get(arch, 4)
    assert network.stride == stride
    assert logits.shape == (2, 5, size[0] // stride, size[1] // stride)
    assert expected.shape[-2:] == size
    torch.testing.assert_close(resize_logits(logits, size), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("arch", ["DPT", "DeepLabV3Plus", "Unet"])
def test_stages_compose_and_tell_their_channels(arch: str) -> None:
    network = small(arch).eval()
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        features = network.encode(image)
        maps = features[0] if isinstance(features, tuple) else features
        decoded = network.decode(features)
        torch.testing.assert_close(network.classify(decoded), network(image))
    assert network.encoder_channels == tuple(each.shape[1] for each in maps)
    assert network.decoder_channels == decoded.shape[1]
    assert network.classes == 5
    assert decoded.shape[-2:] == (64 // network.stride, 96 // network.stride)


@pytest.mark.parametrize(
    ("arch", "options", "divisor"),
    [
        ("DPT", None, 16),
        ("FPN", None, 32),
        ("DeepLabV3Plus", None, 16),
        ("PSPNet", None, 8),
        ("FPN", {"encoder_depth": 4}, 16),
    ],
)
def test_sizes_that_are_no_multiple_are_named(arch: str, options: dict | None, divisor: int) -> None:
    network = small(arch, options=options).train()
    assert network.divisor == divisor
    with pytest.raises(
        ValueError, match=rf"multiples of {divisor}, found 66x64.*fits is {66 // divisor * divisor + divisor}x64"
    ):
        network(torch.randn(2, 3, 66, 64))


def test_unet_takes_any_size() -> None:
    network = small("Unet").eval()
    with torch.no_grad():
        assert network(torch.randn(1, 3, 37, 51)).shape == (1, 5, 37, 51)


@pytest.mark.parametrize("depth", [3, 4])
@pytest.mark.parametrize("arch", ["FPN", "PSPNet"])
def test_up_sampling_follows_the_depth(arch: str, depth: int) -> None:
    """So that the exported model gives logits of the size of the image."""
    network = small(arch, options={"encoder_depth": depth}).eval()
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        assert network.smp(image).shape[-2:] == (64, 96)
        assert network(image).shape[-1] == 96 // network.stride


def test_encoder_and_head_hold_all_parameters_once() -> None:
    network = small("FPN")
    parts = [*network.encoder.parameters(), *network.decoder.parameters(), *network.head.parameters()]
    assert {id(p) for p in parts} == {id(p) for p in network.parameters()}
    assert len(parts) == len({id(p) for p in parts})


def test_classification_head_is_refused() -> None:
    model = smp.FPN("mobilenet_v2", encoder_weights=None, aux_params={"classes": 2})
    with pytest.raises(ValueError, match="aux_params"):
        Segmenter(model)


@pytest.mark.parametrize("stride", [8, 16])
def test_output_stride_reaches_the_encoder(stride: int) -> None:
    network = small("DeepLabV3Plus", output_stride=stride).eval()
    with torch.no_grad():
        coarsest = network.encode(torch.randn(1, 3, 64, 96))[-1]
    assert coarsest.shape[-2:] == (64 // stride, 96 // stride)
    assert network.divisor == stride


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"arch": "DeepLabv3plus"}, "network.arch.*Did you mean 'DeepLabV3Plus'"),
        ({"arch": "xyz"}, "Available: DPT, DeepLabV3"),
        ({"encoder": "resnet5O"}, "network.encoder.*Did you mean 'resnet50'"),
        ({"encoder": "tu-resnet5O"}, "timm has no model 'resnet5O'.*Did you mean 'tu-resnet50"),
        ({"options": {"decoder_dropot": 0.1}}, "network.decoder_dropot.*Did you mean 'decoder_dropout'"),
        ({"options": {"in_channels": 4}}, "set network.channels instead"),
        ({"options": {"activation": "softmax"}}, "network.activation cannot be set: the losses need logits"),
        ({"output_stride": 8}, "that of FPN is fixed.*DeepLabV3, DeepLabV3Plus, PAN"),
        ({"arch": "PAN", "output_stride": 8}, "PAN with encoder mobilenet_v2 cannot be built: .*16 or 32"),
        ({"arch": "DeepLabV3", "encoder": "vgg11"}, "cannot be built: .*dilated"),
        ({"arch": "DeepLabV3", "encoder": "tu-swin_tiny_patch4_window7_224"}, "fixed output stride"),
        ({"encoder": "tu-resnet18", "options": {"decoder_dropot": 0.1}}, "network.decoder_dropot.*'decoder_dropout'"),
        ({"encoder": "tu-resnet18", "options": {"decoder_dropot": None}}, "network.decoder_dropot.*'decoder_dropout'"),
        ({"options": {"decoder_merge_policy": "sum"}}, "cannot be built: .*sum"),
    ],
)
def test_what_cannot_be_built_is_named(changes: dict, words: str) -> None:
    settings = {"arch": "FPN", "encoder": "mobilenet_v2", "weights": "none", "channels": 3, "classes": 5, **changes}
    with pytest.raises(ValueError, match=words):
        build_network(settings.pop("arch"), settings.pop("encoder"), **settings)


def test_timm_options_pass() -> None:
    network = build_network(
        "FPN",
        "tu-resnet18",
        weights="none",
        channels=3,
        classes=2,
        options={"drop_path_rate": 0.5, "decoder_dropout": 0.0},
    )
    assert network.smp.config["drop_path_rate"] == 0.5


@pytest.mark.parametrize("channels", [1, 4])
def test_other_input_channels(channels: int) -> None:
    network = small("FPN", channels=channels).eval()
    assert network(torch.randn(1, channels, 32, 32)).shape == (1, 5, 8, 8)
    assert network.encoder_channels[0] == channels


def test_factory_draws_anew() -> None:
    factory = NetworkFactory(partial(build_network, "FPN", "mobilenet_v2", weights="none", channels=3, classes=3))
    torch.manual_seed(3)
    first, second = factory(), factory()
    torch.manual_seed(3)
    again = factory()
    heads = [n.smp.segmentation_head[0].weight for n in (first, second, again)]
    assert not torch.equal(heads[0], heads[1])
    assert torch.equal(heads[0], heads[2])
    assert not torch.equal(first.smp.encoder.features[0][0].weight, second.smp.encoder.features[0][0].weight)
    assert all(isinstance(n, nn.Module) for n in (first, second))
