"""Random numbers that depend only on a sample's seed, not on the process, batch or step."""

from collections.abc import Sequence

import torch
from torch import Tensor

_STEP = 0x9E3779B97F4A7C15  # odd, so that different purposes have different seeds


def uniform(seeds: Tensor, shape: Sequence[int], *, purpose: int = 0) -> Tensor:
    """Return uniform random numbers (B,*shape) in [0, 1), one row per sample.

    seeds: (B,) int64 on the CPU, like the result. purpose: selects one of a sample's independent random streams.
    """
    drawn = torch.empty(len(seeds), *shape)
    for row, seed in zip(drawn, seeds.tolist(), strict=True):
        generator = torch.Generator().manual_seed((seed + purpose * _STEP) % 2**63)
        row.copy_(torch.rand(tuple(shape), generator=generator))
    return drawn
