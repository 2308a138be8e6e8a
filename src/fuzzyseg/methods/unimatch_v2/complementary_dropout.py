"""Channel dropout for two views of an image: what one view loses, the other keeps.

L. Yang, Z. Zhao, H. Zhao, "UniMatch V2", arXiv 2410.10777.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fuzzyseg.ops.sample_rng import uniform

_WHOLE, _LEVEL = 16, 17  # purposes of a sample's random numbers; levels have the numbers from the second on


def complementary_masks(
    seeds: Tensor, channels: Sequence[int], *, undropped: float = 0.5
) -> tuple[list[Tensor], list[Tensor]]:
    """For each of two views a (B,D_i) mask a level: 0 or 2, so that the two add up to 2 in every channel.

    Where all levels have the same number of channels, as those of a vision transformer have, one mask is used for all
    of them; else each level has its own. With probability `undropped` a sample loses nothing in either view: its masks
    are 1. A sample's own seed alone decides. seeds: (B,) int64, on the CPU, as the masks are.
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
