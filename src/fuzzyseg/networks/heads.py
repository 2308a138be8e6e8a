"""Helpers for methods: modules used only in training, access to a network's features, and network checks."""

from fractions import Fraction
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STAGES = ("encode", "decode", "classify")


def check_stages(network: nn.Module, method: str) -> None:
    """Raise ValueError if the network lacks any of the methods `encode`, `decode` and `classify`."""
    missing = [stage for stage in STAGES if not callable(getattr(network, stage, None))]
    if missing:
        raise ValueError(
            f"network: {method} works on features, but {type(network).__name__} has no {', '.join(missing)}; add "
            "`encode` (image -> list of feature maps), `decode` (feature maps -> one map) and `classify` (map -> "
            "logits), whose composition is forward, or choose a method that needs only logits"
        )


def check_different(first: nn.Module, second: nn.Module, method: str) -> None:
    """Raise ValueError if two networks that learn from each other have equal weights."""
    if all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True)):
        raise ValueError(
            f"the two networks of {method} start from equal weights and would learn nothing from each other: give "
            "files of two trainings with different seeds (--init FILE,FILE)"
        )


class Stages(NamedTuple):
    """Outputs of the stages: the features of `encode`, decoded (B,D,h,w), and logits (B,C,h,w)."""

    features: Any
    decoded: Tensor
    logits: Tensor


def encoder_channels(network: Any, method: str) -> tuple[int, ...]:
    """Return the channel counts of the encoder's feature maps, fine to coarse. Raises ValueError if undefined."""
    return tuple(_channels(network, "encoder_channels", method))


def decoder_channels(network: Any, method: str) -> int:
    """Return the decoder's number of output channels. Raises ValueError if it or the stages are undefined."""
    return int(_channels(network, "decoder_channels", method))


def _channels(network: Any, name: str, method: str) -> Any:
    check_stages(network, method)
    if getattr(network, name, None) is None:
        raise ValueError(
            f"network: method {method} adds heads to features, but {type(network).__name__} has no attribute {name} "
            "(docs/own-network.md): add it, or choose another method"
        )
    return getattr(network, name)


def pooled_cells(network: Any, side: int, setting: str) -> tuple[int, int]:
    """Return the pooling factor from the features of `decode` to cells of `side` pixels, and the cells' actual side.

    A side below the network's stride is raised to the stride or, if that is not an integer, to its smallest integer
    multiple (7 for 1.75). A network without `stride` is assumed to have stride 4. Raises ValueError, naming the
    setting, if the side is not a multiple of the stride.
    """
    stride = Fraction(getattr(network, "stride", 4))
    unit = stride.numerator
    if side < stride:
        side = unit
    if side % unit:
        fitting = [size for size in (side - side % unit, side - side % unit + unit) if size]
        raise ValueError(
            f"{setting}: found {side}, expected a multiple of {unit}, because the stride of {type(network).__name__} "
            f"is {float(stride):g} pixels; set it to {' or '.join(map(str, fitting))}"
        )
    return int(side / stride), side


def run_stages(network: Any, image: Tensor) -> Stages:
    """Run the stages of `network(image)` and return all their outputs."""
    features = network.encode(image)
    decoded = network.decode(features)
    return Stages(features, decoded, network.classify(decoded))


def projector(channels: int, width: int, hidden: int | None = None) -> nn.Sequential:
    """Build a 1x1 convolution to `hidden` (default: `channels`), ReLU and a 1x1 convolution to `width`."""
    hidden = hidden or channels
    return nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, width, 1))


def convolutional_head(
    channels: int, out: int, *, hidden: int = 256, layers: int = 1, dropout: float = 0.1
) -> nn.Sequential:
    """Build `layers` blocks (3x3 convolution to `hidden`, batch norm, ReLU, Dropout2d) and a 1x1 convolution to `out`.

    With one layer on an encoder stage this is PSPNet's auxiliary classifier (Zhao et al., CVPR 2017); with two it is a
    representation head. The 3x3 convolutions have no bias, since batch norm would cancel it.
    """
    parts: list[nn.Module] = []
    for number in range(layers):
        convolution = nn.Conv2d(hidden if number else channels, hidden, 3, padding=1, bias=False)
        parts += [convolution, nn.BatchNorm2d(hidden), nn.ReLU(), nn.Dropout2d(dropout)]
    return nn.Sequential(*parts, nn.Conv2d(hidden, out, 1))


def at_input_size(body: nn.Module, values: Tensor, smallest: int) -> Tensor:
    """Apply `body` to values (B,D,H,W), enlarged to sides >= `smallest`, and resize its output to (B,1,H,W)."""
    size = values.shape[-2:]
    larger = [max(side, smallest) for side in size]
    if larger != list(size):
        values = F.interpolate(values, size=larger, mode="bilinear", align_corners=True)
    out: Tensor = body(values)
    return F.interpolate(out, size=size, mode="bilinear", align_corners=True)
