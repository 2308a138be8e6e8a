"""Random numbers that belong to a sample: its own seed decides them, not the process, the batch or the step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_APART = 0x9E3779B97F4A7C15  # an odd number far from 2**63, so that the purposes of a sample have seeds far apart


def uniform(seeds: Tensor, shape: Sequence[int], *, purpose: int = 0) -> Tensor:
    """(B,*shape) numbers in [0, 1), a row for each sample. seeds: (B,) int64, on the CPU, as the numbers are.

    purpose: what they are for, where a sample needs numbers for several things that must not depend on each other.
    """
    drawn = torch.empty(len(seeds), *shape)
    for row, seed in zip(drawn, seeds.tolist(), strict=True):
        generator = torch.Generator().manual_seed((seed + purpose * _APART) % 2**63)
        row.copy_(torch.rand(tuple(shape), generator=generator))
    return drawn
