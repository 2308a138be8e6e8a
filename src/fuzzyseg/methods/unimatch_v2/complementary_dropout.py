"""Complementary channel dropout for two views (L. Yang, Z. Zhao, H. Zhao, "UniMatch V2", arXiv 2410.10777)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fuzzyseg.ops.sample_rng import uniform

_WHOLE, _LEVEL = 16, 17  # `purpose` of the random numbers; level i uses _LEVEL + i


def complementary_masks(
    seeds: Tensor, channels: Sequence[int], *, undropped: float = 0.5
) -> tuple[list[Tensor], list[Tensor]]:
    """Masks (B,D_i) per level for each of two views, of 0 and 2, that add up to 2 in every channel.

    Levels of equal width, as in a vision transformer, share one mask; otherwise each has its own. With probability
    `undropped` both masks of a sample are 1. seeds: (B,) int64, each sample's seed, on the CPU, as the masks are.
    """
    whole = uniform(seeds, (1,), purpose=_WHOLE) < undropped  # (B,1)
    shared = len(set(channels)) == 1
    first = [
        torch.where(whole, 1.0, 2.0 * (uniform(seeds, (count,), purpose=_LEVEL + level) < 0.5))
        for level, count in enumerate(channels[:1] if shared else channels)
    ]
    if shared:
        first = first * len(channels)
    return first, [2 - mask for mask in first]
