"""Order statistics and draws under a mask, without reading a value back from an accelerator."""

from __future__ import annotations

import torch
from torch import Tensor


def masked_quantile(values: Tensor, valid: Tensor, share: float) -> Tensor:
    """The value below which a `share` in [0, 1] of the valid values lies: 0-dim; +inf where nothing is valid.

    Between two values it is interpolated linearly, as by `numpy.quantile`. values, valid (bool): of one shape.
    """
    ordered = torch.where(valid, values, torch.inf).flatten().sort().values
    last = (valid.sum() - 1).clamp(min=0)
    place = share * last.double()
    low, high = ordered.gather(0, torch.stack([place.floor(), place.ceil()]).long())  # an index of no axis is read back
    return torch.where(high.isfinite(), low + (place - place.floor()).to(values.dtype) * (high - low), torch.inf)


def draw_members(members: Tensor, count: int) -> Tensor:
    """Of each row of members (R,N) bool `count` places that are True: (R,count) int64, evenly, with replacement.

    Drawn by torch's global generator. For a row without any the places mean nothing.
    """
    running = members.long().cumsum(1)
    total = running[:, -1:]
    chance = torch.rand(len(members), count, device=members.device)
    wanted = torch.minimum((chance * total).long(), total - 1) + 1  # the how many-th of them
    return torch.searchsorted(running, wanted).clamp(max=members.shape[1] - 1)


def draw_weighted(weights: Tensor, count: int) -> Tensor:
    """Of each row of non-negative weights (R,N) `count` places, with replacement, as the weights say: (R,count) int64.

    Unlike torch.multinomial it takes rows of zeros, for which the places mean nothing, and never draws a weight of 0
    beside others. Drawn by torch's global generator.
    """
    running = weights.double().cumsum(1)
    chance = torch.rand(len(weights), count, device=weights.device, dtype=torch.float64)
    return torch.searchsorted(running, chance * running[:, -1:], right=True).clamp(max=weights.shape[1] - 1)


def seeded_places(seeds: Tensor, places: int, count: int) -> Tensor:
    """`count` of so many places for each seed, drawn without replacement from that seed alone: (B,count) int64.

    All of them, shuffled, where there are no more. seeds: (B,) int64, on the CPU, as the result is.
    """
    drawn = [torch.randperm(places, generator=torch.Generator().manual_seed(seed)) for seed in seeds.tolist()]
    return torch.stack(drawn)[:, :count]
