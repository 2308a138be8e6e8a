"""Heads on features, and what a network must have for them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fuzzyseg.networks import build_network
from fuzzyseg.networks.heads import (
    convolutional_head,
    decoder_channels,
    encoder_channels,
    pooled_cells,
    projector,
    run_stages,
)
from fuzzyseg.ops.channel_dropout import levels


def test_a_projector_works_cell_by_cell():
    head = projector(6, 4)
    assert [tuple(p.shape) for p in head.parameters()] == [(6, 6, 1, 1), (6,), (4, 6, 1, 1), (4,)]
    image = torch.randn(2, 6, 3, 5)
    result = head(image)
    assert result.shape == (2, 4, 3, 5)
    hidden = torch.relu(image[1, :, 2, 4] @ head[0].weight[..., 0, 0].T + head[0].bias)
    torch.testing.assert_close(result[1, :, 2, 4], hidden @ head[2].weight[..., 0, 0].T + head[2].bias)
    assert projector(6, 4, 9)(image).shape == (2, 4, 3, 5)


@pytest.mark.parametrize("layers", [1, 2])
def test_a_convolutional_head_has_its_layers_and_drops_whole_maps(layers):
    torch.manual_seed(0)
    head = convolutional_head(6, 4, hidden=16, layers=layers, dropout=0.5)
    kinds = [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.Dropout2d] * layers + [nn.Conv2d]
    assert [type(part) for part in head] == kinds
    assert head(torch.randn(2, 6, 3, 5)).shape == (2, 4, 3, 5)
    dropped = head[:-1](torch.randn(2, 6, 7, 7)).flatten(2).sum(2)
    assert 0 < int((dropped == 0).sum()) < 32


def test_the_coarsest_stage_of_any_encoder_has_the_channels_that_it_tells():
    image = torch.zeros(1, 3, 64, 64)
    for arch, encoder in (("FPN", "mobilenet_v2"), ("DPT", "tu-vit_tiny_patch16_224")):
        network = build_network(arch, encoder, weights="none", channels=3, classes=2).eval()
        with torch.no_grad():
            result = run_stages(network, image)
            assert torch.equal(result.logits, network(image))
        coarsest = levels(result.features)[-1]
        assert coarsest.dim() == 4
        assert encoder_channels(network, "m")[-1] == coarsest.shape[1]
        assert decoder_channels(network, "m") == result.decoded.shape[1]


def test_a_network_without_stages_is_told_what_it_lacks():
    class Own(nn.Module):
        decoder_channels = 3

        def encode(self, image):
            return image

    with pytest.raises(ValueError, match=r"m works on features, but Own has no decode, classify"):
        decoder_channels(Own(), "m")
    whole = Own()
    whole.decode = whole.classify = whole.encode
    assert decoder_channels(whole, "m") == 3
    with pytest.raises(ValueError, match=r"Own has no attribute encoder_channels \(docs/own-network"):
        encoder_channels(whole, "m")


class Strided:
    def __init__(self, stride):
        self.stride = stride


@pytest.mark.parametrize(
    ("stride", "side", "expected"),
    [
        (4, 8, (2, 8)),
        (4.0, 8, (2, 8)),  # a Segmenter tells a float
        (1, 8, (8, 8)),
        (8, 8, (1, 8)),
        (16, 8, (1, 16)),
        (16, 1, (1, 16)),
        (1.75, 7, (4, 7)),
        (1.75, 14, (8, 14)),
        (1.75, 1, (4, 7)),
    ],
)
def test_a_cell_is_a_whole_number_of_the_networks_own_or_the_least_there_is(stride, side, expected):
    result = pooled_cells(Strided(stride), side, "method.cell")
    assert result == expected
    assert all(type(number) is int for number in result)
    assert result[0] * stride == result[1]


@pytest.mark.parametrize(
    ("stride", "side", "message"),
    [
        (4, 6, "method.cell: found 6, expected a multiple of 4, .*Strided is 4 pixels; set it to 4 or 8"),
        (8.0, 20, "found 20, expected a multiple of 8, .*; set it to 16 or 24"),
        (1.75, 8, "found 8, expected a multiple of 7, .* 1.75 pixels; set it to 7 or 14"),
        (1.75, 3, "found 3, .*; set it to 7$"),
    ],
)
def test_a_cell_that_no_whole_number_makes_up_is_refused_with_what_would_fit(stride, side, message):
    with pytest.raises(ValueError, match=message):
        pooled_cells(Strided(stride), side, "method.cell")


def test_a_network_that_does_not_tell_its_stride_is_taken_to_have_4():
    assert pooled_cells(nn.Identity(), 8, "method.cell") == (2, 8)
    with pytest.raises(ValueError, match="multiple of 4"):
        pooled_cells(nn.Identity(), 10, "method.cell")
