"""DPT on patches of any size and grids of any number of patches."""

import copy

import pytest
import segmentation_models_pytorch as smp
import torch
from torch.nn import functional as F

from fuzzyseg.inference import ModelCard, load, save_model
from fuzzyseg.networks import Segmenter, build_network
from fuzzyseg.ops.resize import resize_logits

TINY = {
    "embed_dim": 24,
    "num_heads": 2,
    "decoder_intermediate_channels": [8, 12, 16, 20],
    "decoder_fusion_channels": 8,
}


def dpt(encoder="tu-vit_small_patch14_dinov2", **options):
    torch.manual_seed(0)
    settings = {"weights": "none", "channels": 3, "classes": 5, "options": {**TINY, **options}}
    return build_network("DPT", encoder, **settings).eval()


@pytest.mark.parametrize("patch", [8, 16, 32])
def test_on_even_grids_it_is_the_decoder_of_smp(patch):
    torch.manual_seed(0)
    model = smp.DPT(
        "tu-vit_tiny_patch16_224", encoder_weights=None, classes=5, patch_size=patch, dynamic_img_size=True, **TINY
    ).eval()
    image = torch.randn(2, 3, 64, 128)
    expected, names = model(image), list(model.state_dict())
    network = Segmenter(copy.deepcopy(model))
    torch.testing.assert_close(network.smp(image), expected)
    torch.testing.assert_close(resize_logits(network(image), (64, 128)), expected)
    assert list(network.smp.state_dict()) == names
    assert network.loads_elsewhere
    assert network.stride == 2


@pytest.mark.parametrize("size", [(14, 28), (42, 70), (56, 84)])
def test_patches_of_14_get_the_levels_of_16_and_logits_of_the_images_size(size):
    network = dpt()
    assert (network.divisor, network.stride) == (14, 1.75)
    image = torch.randn(2, 3, *size)
    logits = network(image)
    assert logits.shape == (2, 5, size[0] // 14 * 8, size[1] // 14 * 8)
    own = network.smp(image)
    assert own.shape == (2, 5, *size)
    torch.testing.assert_close(resize_logits(logits, size), own, rtol=1e-4, atol=1e-5)
    maps, _ = network.encode(image)
    grid = (size[0] // 14, size[1] // 14)
    assert all(each.shape == (2, 24, *grid) for each in maps)
    result = [block(each).shape[-2:] for block, each in zip(network.decoder.reassemble_blocks, maps, strict=True)]
    half = tuple(-(-side // 2) for side in grid)
    assert result == [tuple(4 * s for s in grid), tuple(2 * s for s in grid), grid, half]


@pytest.mark.parametrize("encoder", ["tu-vit_small_patch14_dinov2", "tu-vit_small_patch14_reg4_dinov2"])
def test_all_of_it_learns(encoder):
    network = dpt(encoder).train()
    network(torch.randn(2, 3, 42, 56)).square().mean().backward()
    idle = {name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()}
    assert {name.split(".")[-2] for name in idle} <= {"norm"}  # smp reads the blocks before the last norm


def test_levels_meet_by_the_formula_of_the_decoder():
    """From coarse to fine: add what was brought to this size, convolve, bring to the next size."""
    network = dpt()
    decoder = network.decoder
    features, tokens = network.encode(torch.randn(1, 3, 42, 70))
    levels = [
        decoder.reassemble_blocks[i](decoder.projection_blocks[i](features[i], tokens[i])) for i in range(4)
    ]  # the finest first
    fused = 0
    for step, level in enumerate((3, 2, 1, 0)):
        block = decoder.fusion_blocks[step]
        here = block.residual_conv_block2(block.residual_conv_block1(levels[level]) + fused)
        size = levels[level - 1].shape[-2:] if level else (24, 40)
        fused = block.project(F.interpolate(here, size, mode="bilinear", align_corners=True))
    torch.testing.assert_close(network.decode((features, tokens)), fused)


def test_positions_of_dinov2_are_its_own_at_its_own_size():
    model = dpt().encoder.model
    assert model.pos_embed.shape == (1, 37 * 37 + 1, 24)
    torch.nn.init.normal_(model.pos_embed)
    for size, patches in ((518, 37), (798, 57)):
        grid = torch.zeros(1, patches, patches, 24)
        placed = model._pos_embed(grid)
        assert placed.shape == (1, patches**2 + 1, 24)
        if size == 518:
            torch.testing.assert_close(placed[:, 1:], model.pos_embed[:, -(37**2) :])


def test_a_saved_network_comes_back(tmp_path):
    network = dpt()
    card = ModelCard(
        arch="DPT", encoder="tu-vit_small_patch14_dinov2", channels=3, classes=list("abcde"), mean=[0.5] * 3,
        std=[0.5] * 3, crop=(42, 28),
    )  # fmt: skip
    save_model(tmp_path / "model", network, card=card)
    assert "cannot load it" in (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    again = load(tmp_path / "model").network
    image = torch.randn(1, 3, 42, 28)
    torch.testing.assert_close(again(image), network(image))


def test_an_encoder_of_one_size_says_so():
    options = {"img_size": [64, 96]}
    network = dpt("tu-beit_base_patch16_224", **options)
    assert network(torch.randn(1, 3, 64, 96)).shape == (1, 5, 32, 48)
    with pytest.raises(ValueError, match=r"64x96, found 32x96.*network.img_size=\[HEIGHT,WIDTH\]"):
        network(torch.randn(1, 3, 32, 96))
