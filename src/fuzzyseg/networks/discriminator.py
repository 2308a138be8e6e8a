"""Networks that judge a prediction: where it looks like a label map, and how wrong it is."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Discriminator(nn.Module):
    """Logits (B,1,H,W): does each place look like ground truth? Input (B,C,H,W): probabilities, or one-hot labels.

    W.-C. Hung et al., "Adversarial learning for semi-supervised semantic segmentation", BMVC 2018: five 4x4
    convolutions of stride 2 with LeakyReLU between them and no normalisation; the output, of stride 32, is brought to
    the size of the input. Below `smallest` along an axis nothing would be left for the last convolution: such an input
    is first enlarged to that size, bilinearly.
    """

    smallest = 32

    def __init__(self, classes: int, width: int = 64) -> None:
        super().__init__()
        sizes = [classes, width, 2 * width, 4 * width, 8 * width]
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [nn.Conv2d(before, after, 4, 2, 1), nn.LeakyReLU(0.2)]
        self.body = nn.Sequential(*layers, nn.Conv2d(sizes[-1], 1, 4, 2, 1))

    def forward(self, prediction: Tensor) -> Tensor:
        """Logits at the size of the input."""
        return at_input_size(self.body, prediction, self.smallest)


class HalfInstanceNorm(nn.Module):
    """Batch norm with weights on the first half of the channels, instance norm without on the others (B,D,H,W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.batch = nn.BatchNorm2d(channels // 2)
        self.instance = nn.InstanceNorm2d(channels - channels // 2)

    def forward(self, features: Tensor) -> Tensor:
        """The features, each half normalised in its way."""
        half = self.batch.num_features
        return torch.cat([self.batch(features[:, :half]), self.instance(features[:, half:])], 1)


class FlawDetector(nn.Module):
    """How wrong each pixel of a prediction is, (B,1,H,W), unbounded; input image (B,Cin,H,W), probabilities (B,C,H,W).

    Z. Ke et al., "Guided collaborative training for pixel-wise semi-supervised learning", ECCV 2020: seven 4x4
    convolutions, of stride 2, 2, 1, 2, 1, 2, 1, each with `HalfInstanceNorm` and LeakyReLU, and one of stride 2 to one
    channel, whose output is brought to the size of the input. An input below `smallest` along an axis is first enlarged
    to that size, bilinearly: the last norms need more than one cell.
    """

    smallest = 64
    one_cell = 91
    """Up to this side its output is one cell wide."""

    def __init__(self, channels: int, classes: int, width: int = 64) -> None:
        super().__init__()
        plan = [(1, 2), (2, 2), (2, 1), (4, 2), (4, 1), (8, 2), (8, 1)]
        layers: list[nn.Module] = []
        before = channels + classes
        for factor, stride in plan:
            after = factor * width
            # without bias: the norm would take it away
            layers += [nn.Conv2d(before, after, 4, stride, 1, bias=False), HalfInstanceNorm(after), nn.LeakyReLU(0.2)]
            before = after
        self.body = nn.Sequential(*layers, nn.Conv2d(before, 1, 4, 2, 1))

    def forward(self, image: Tensor, probabilities: Tensor) -> Tensor:
        """The flaw map at the size of the image."""
        return at_input_size(self.body, torch.cat([image, probabilities], 1), self.smallest)


def at_input_size(body: nn.Module, values: Tensor, smallest: int) -> Tensor:
    """`body` of values (B,D,H,W), enlarged where an axis is below `smallest`; its output (B,1,h,w) brought to (H,W)."""
    size = values.shape[-2:]
    larger = [max(side, smallest) for side in size]
    if larger != list(size):
        values = F.interpolate(values, size=larger, mode="bilinear", align_corners=True)
    out: Tensor = body(values)
    return F.interpolate(out, size=size, mode="bilinear", align_corners=True)
