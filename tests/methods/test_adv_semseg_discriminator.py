import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fuzzyseg.methods.adv_semseg.discriminator import Discriminator


@pytest.mark.parametrize("size", [(321, 321), (70, 45), (33, 97), (12, 14), (1, 1)])
def test_a_discriminator_answers_at_the_size_of_its_input(size):
    assert Discriminator(3, width=2)(torch.rand(1, 3, *size)).shape == (1, 1, *size)


def test_a_discriminator_is_five_convolutions_and_nothing_else():
    layers = [m for m in Discriminator(21).modules() if isinstance(m, nn.Conv2d)]
    assert [(m.in_channels, m.out_channels) for m in layers] == [
        (21, 64), (64, 128), (128, 256), (256, 512), (512, 1)
    ]  # fmt: skip
    assert all((m.kernel_size, m.stride, m.padding) == ((4, 4), (2, 2), (1, 1)) for m in layers)
    result = sum(p.numel() for p in Discriminator(21).parameters())
    assert result == sum(p.numel() for m in layers for p in m.parameters())


def test_a_small_input_is_enlarged_and_the_answer_brought_back():
    net = Discriminator(3, width=2)
    image = torch.rand(1, 3, 12, 40)
    larger = F.interpolate(image, size=(32, 40), mode="bilinear", align_corners=True)
    expected = F.interpolate(net.body(larger), size=(12, 40), mode="bilinear", align_corners=True)
    torch.testing.assert_close(net(image), expected)
