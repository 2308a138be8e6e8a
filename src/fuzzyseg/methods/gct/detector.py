"""Flaw detector, which predicts the per-pixel error of a prediction."""

import torch
from torch import Tensor, nn

from fuzzyseg.networks.heads import at_input_size


class HalfInstanceNorm(nn.Module):
    """Batch norm on the first half of the channels (B,D,H,W) and non-affine instance norm on the second half."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.batch = nn.BatchNorm2d(channels // 2)
        self.instance = nn.InstanceNorm2d(channels - channels // 2)

    def forward(self, features: Tensor) -> Tensor:
        """Return the normalised features."""
        half = self.batch.num_features
        return torch.cat([self.batch(features[:, :half]), self.instance(features[:, half:])], 1)


class FlawDetector(nn.Module):
    """Predict an unbounded flaw map (B,1,H,W) from an image (B,Cin,H,W) and probabilities (B,C,H,W).

    Z. Ke et al., ECCV 2020: seven 4x4 convolutions with strides 2, 2, 1, 2, 1, 2, 1, each followed by
    `HalfInstanceNorm` and LeakyReLU, and one with stride 2 and a single output channel, whose output is upsampled to
    the input's size. Sides shorter than `smallest` are first enlarged to it, since the last norm layers need more than
    one spatial element.
    """

    smallest = 64
    one_cell = 91
    """Largest input side for which the output, before upsampling, is 1x1."""

    def __init__(self, channels: int, classes: int, width: int = 64) -> None:
        super().__init__()
        plan = [(1, 2), (2, 2), (2, 1), (4, 2), (4, 1), (8, 2), (8, 1)]
        layers: list[nn.Module] = []
        before = channels + classes
        for factor, stride in plan:
            after = factor * width
            # no bias: the norm would cancel it
            layers += [nn.Conv2d(before, after, 4, stride, 1, bias=False), HalfInstanceNorm(after), nn.LeakyReLU(0.2)]
            before = after
        self.body = nn.Sequential(*layers, nn.Conv2d(before, 1, 4, 2, 1))

    def forward(self, image: Tensor, probabilities: Tensor) -> Tensor:
        """Return the flaw map at the image's size."""
        return at_input_size(self.body, torch.cat([image, probabilities], 1), self.smallest)
