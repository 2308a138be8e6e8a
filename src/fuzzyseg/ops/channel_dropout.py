"""Channel dropout on everything that an encoder hands to its decoder: a perturbation of features.

`features` is what a network's `encode` gives: a list of maps (B,D_i,h_i,w_i), or for DPT a tuple of the maps and of the
prefix tokens of each level, (B,N,D_i) or None. A channel is dropped in a map and in the tokens of its level alike,
for the decoder reads both as that channel. (The first map is the image itself in the networks of
segmentation_models_pytorch: no decoder of theirs reads it, so that it does not matter that it is dropped as well.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_STREAM = 0x5DEECE66  # apart from the sample's other draws


def levels(features: Any) -> list[Tensor]:
    """The feature maps (B,D_i,h_i,w_i) of what `encode` gave. Raises ValueError where they are not to be found."""
    maps = features[0] if isinstance(features, tuple) and len(features) == 2 else features
    if not isinstance(maps, list) or not all(isinstance(each, Tensor) and each.dim() == 4 for each in maps):
        raise ValueError(
            f"features: found {type(maps).__name__} from the network's encode, expected a list of maps (B,D,h,w), or a "
            "tuple of such a list and a list of prefix tokens"
        )
    return maps


def channel_masks(seeds: Tensor, channels: Sequence[int], probability: float = 0.5) -> list[Tensor]:
    """For each level a (B,D_i) mask: 0 with `probability`, else 1 / (1 - probability), independent of each other.

    A sample's own seed alone decides. seeds: (B,) int64, on the CPU, as the masks are. (Drawn per sample, so that the
    number of processes and of micro-batches changes nothing.)
    """
    generators = [torch.Generator().manual_seed(seed ^ _STREAM) for seed in seeds.tolist()]
    drawn = [torch.stack([torch.rand(count, generator=g) for g in generators]) for count in channels]
    return [(values >= probability).float() / (1 - probability) for values in drawn]


def scale_channels(features: Any, masks: Sequence[Tensor]) -> Any:
    """`features` with each level's channels times its mask (B,D_i), which may lie on any device."""

    def scaled(values: Tensor | None, mask: Tensor) -> Tensor | None:
        if values is None:
            return None
        mask = mask.to(values.device, values.dtype, non_blocking=True)
        return values * (mask[:, :, None, None] if values.dim() == 4 else mask[:, None])

    if isinstance(features, tuple):
        maps, tokens = features
        return (scale_channels(maps, masks), [scaled(t, m) for t, m in zip(tokens, masks, strict=True)])
    return [scaled(f, m) for f, m in zip(features, masks, strict=True)]


def join(first: Any, second: Any) -> Any:
    """The features of two batches as those of one, the first batch's samples before the second's."""
    if first is None or isinstance(first, Tensor):
        return None if first is None else torch.cat([first, second])
    parts = [join(a, b) for a, b in zip(first, second, strict=True)]
    return tuple(parts) if isinstance(first, tuple) else parts
