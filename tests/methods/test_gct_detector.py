import pytest
import torch
from torch import nn

from fuzzyseg.methods.gct.detector import FlawDetector, HalfInstanceNorm
from fuzzyseg.ops.gradient import frozen


@pytest.mark.parametrize("size", [(321, 321), (513, 64), (70, 45), (12, 14)])
def test_a_flaw_detector_answers_at_the_size_of_its_input(size):
    detector = FlawDetector(3, 4, width=2)
    assert detector(torch.rand(1, 3, *size), torch.rand(1, 4, *size)).shape == (1, 1, *size)


def test_a_flaw_detector_has_the_papers_layers_and_a_linear_end():
    layers = [m for m in FlawDetector(3, 21).modules() if isinstance(m, nn.Conv2d)]
    assert [(m.in_channels, m.out_channels, m.stride[0]) for m in layers] == [
        (24, 64, 2), (64, 128, 2), (128, 128, 1), (128, 256, 2),
        (256, 256, 1), (256, 512, 2), (512, 512, 1), (512, 1, 2),
    ]  # fmt: skip
    detector = FlawDetector(3, 4, width=2)
    with torch.no_grad():
        detector.body[-1].weight.zero_()
        detector.body[-1].bias.fill_(-7)
    assert (detector(torch.rand(2, 3, 64, 64), torch.rand(2, 4, 64, 64)) == -7).all()


def test_half_of_the_channels_is_normalised_over_the_batch_and_half_in_each_image():
    x = torch.randn(3, 6, 5, 4) * 2 + 1
    result = HalfInstanceNorm(6)(x)

    def normal(part, axes):
        return (part - part.mean(axes, True)) / (part.var(axes, unbiased=False, keepdim=True) + 1e-5).sqrt()

    torch.testing.assert_close(result[:, :3], normal(x[:, :3], (0, 2, 3)))
    torch.testing.assert_close(result[:, 3:], normal(x[:, 3:], (2, 3)))
    assert sum(p.numel() for p in HalfInstanceNorm(6).parameters()) == 6  # weights of the batch-norm half only


def test_a_frozen_critic_lets_the_gradient_through():
    detector, p = FlawDetector(3, 4, width=2), torch.rand(2, 4, 64, 64, requires_grad=True)
    with frozen(detector):
        detector(torch.rand(2, 3, 64, 64), p).square().sum().backward()
    assert p.grad.any()
    assert all(q.grad is None for q in detector.parameters())
