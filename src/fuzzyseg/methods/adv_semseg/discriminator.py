"""Fully convolutional discriminator that distinguishes label maps from predictions."""

from itertools import pairwise

from torch import Tensor, nn

from fuzzyseg.networks.heads import at_input_size


class Discriminator(nn.Module):
    """Map probabilities or one-hot labels (B,C,H,W) to logits (B,1,H,W), which are high for ground-truth label maps.

    W.-C. Hung et al., BMVC 2018: five 4x4 convolutions with stride 2 and LeakyReLU between them, without normalisation;
    the output at stride 32 is upsampled to the input's size. Sides shorter than `smallest` are first enlarged to it, so
    that the last convolution's input is not too small.
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
        """Return logits at the input's size."""
        return at_input_size(self.body, prediction, self.smallest)
