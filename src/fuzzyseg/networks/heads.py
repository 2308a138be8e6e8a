"""What methods put on a network's features, for training alone."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, NamedTuple

from torch import Tensor, nn

from fuzzyseg.networks.stages import check_stages

_CHANNELS = ("encoder_channels", "decoder_channels")


class Channels(NamedTuple):
    """Channels of each of the encoder's feature maps, from fine to coarse, and of the decoder's."""

    encoder: tuple[int, ...]
    decoder: int


class Stages(NamedTuple):
    """What each stage gave: features, as `encode` gives them; decoded (B,D,h,w); logits (B,C,h,w)."""

    features: Any
    decoded: Tensor
    logits: Tensor


def feature_channels(network: Any, method: str) -> Channels:
    """What the network tells of its channels; ValueError unless it does and can be run stage by stage."""
    check_stages(network, method)
    missing = [name for name in _CHANNELS if not hasattr(network, name)]
    if missing:
        raise ValueError(
            f"network: method {method} puts heads on features, but {type(network).__name__} has no "
            f"{', '.join(missing)} (docs/own-network.md): add them, or choose another method"
        )
    return Channels(tuple(network.encoder_channels), int(network.decoder_channels))


def pooled_cells(network: Any, side: int, setting: str) -> tuple[int, int]:
    """How many cells of `decode`, along each side, make one of `side` pixels; and how many pixels that has.

    Below the network's stride nothing can be pooled: the side is then the stride itself, or the least whole number of
    pixels that is a multiple of one such as 1.75. A network that does not tell its `stride` is taken to have 4. Raises
    ValueError, which names the setting, for a side that no whole number of cells makes up.
    """
    stride = Fraction(getattr(network, "stride", 4))
    least = stride.numerator
    if side < stride:
        side = least
    if side % least:
        fitting = [size for size in (side - side % least, side - side % least + least) if size]
        raise ValueError(
            f"{setting}: found {side}, expected a multiple of {least}, for {type(network).__name__} has a feature for "
            f"every {float(stride):g} pixels; set it to {' or '.join(map(str, fitting))}"
        )
    return int(side / stride), side


def run_stages(network: Any, image: Tensor) -> Stages:
    """`network(image)`, with what lies between."""
    features = network.encode(image)
    decoded = network.decode(features)
    return Stages(features, decoded, network.classify(decoded))


def stage(features: Any, number: int) -> Tensor:
    """One of the feature maps (B,D,h,w) of `encode`, counted as in a list: -1 is the coarsest.

    What else the encoder gave, such as the prefix tokens of a vision transformer, is left aside.
    """
    maps = features[0] if isinstance(features, tuple) else features
    chosen: Tensor = maps[number]
    return chosen


def projector(channels: int, width: int, hidden: int | None = None) -> nn.Sequential:
    """1x1 convolution to `hidden` (None: channels), ReLU, 1x1 convolution to width: (B,D,h,w) -> (B,width,h,w)."""
    hidden = hidden or channels
    return nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, width, 1))


def convolutional_head(
    channels: int, out: int, *, hidden: int = 256, layers: int = 1, dropout: float = 0.1
) -> nn.Sequential:
    """`layers` times 3x3 convolution to `hidden`, batch-norm, ReLU and Dropout2d; then a 1x1 convolution to `out`.

    One layer on a stage of the encoder is the auxiliary classifier of PSPNet (Zhao et al., CVPR 2017), two layers are a
    representation head. The 3x3 convolutions have no bias: the batch-norm would take it away.
    """
    parts: list[nn.Module] = []
    for number in range(layers):
        parts += [
            nn.Conv2d(hidden if number else channels, hidden, 3, padding=1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            nn.Dropout2d(dropout),
        ]
    return nn.Sequential(*parts, nn.Conv2d(hidden, out, 1))
