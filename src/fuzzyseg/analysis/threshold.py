"""Which threshold T covers how much of the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from fuzzyseg.losses.arguments import at_least_fp32
from fuzzyseg.losses.fpl.assignment import assign
from fuzzyseg.losses.fpl.options import FPLOptions, Rule, Variant


def coverage_by_threshold(
    logits: Tensor,
    target: Tensor,
    thresholds: Sequence[float],
    *,
    k_cap: int | None = None,
    rule: Rule = "n-1",
    variant: Variant = "paper",
    ignore_index: int = 255,
) -> tuple[Tensor, Tensor]:
    """The membership of the true class, summed over the pixels, for each threshold, and how many pixels: (C,M), (C,).

    By the most probable class of a pixel, in fp64 on the CPU; summed over the classes they are those of all pixels.
    With one sort for all thresholds: a class is positive from some T on, which its place in the falling order and the
    sum before it tell. `continuous` counts the class in between by its part. logits (B,C,H,W); target (B,H,W) integers;
    pixels of `ignore_index` are left out. Counts of several batches add up.
    """
    options = FPLOptions(k_cap=k_cap, rule=rule, variant=variant)
    with torch.no_grad():
        found = assign(at_least_fp32(logits), 1.0, replace(options, rule="n-1"))
        seen = target != ignore_index
        truth = torch.where(seen, target, 0).long().unsqueeze(1)
        rank = (found.order == truth).byte().argmax(1, keepdim=True)  # from 0
        p, upto = (side.gather(1, rank)[seen.unsqueeze(1)] for side in (found.p, found.total))
        before = torch.where(rank > 0, found.total.gather(1, (rank - 1).clamp(min=0)), 0)[seen.unsqueeze(1)]
        rank, label = rank[seen.unsqueeze(1)], found.order[:, 0][seen].cpu()
        classes = logits.shape[1]
        cap = min(k_cap or (3 if variant == "official" else classes - 1), classes - 1)
        covered = []
        for t in thresholds:
            share = torch.where(rank == 0, 1, _share(p, before, upto, rank, t, rule, variant))
            share = torch.where(rank < cap, share, 0).cpu().double()
            covered.append(torch.zeros(classes, dtype=torch.float64).index_add_(0, label, share))
    return torch.stack(covered, 1), torch.bincount(label, minlength=classes)


def _share(p: Tensor, before: Tensor, upto: Tensor, rank: Tensor, t: float, rule: Rule, variant: Variant) -> Tensor:
    """How far a class with this probability, and the sums without and with it, is positive at T = t."""
    if isinstance(rule, int):
        return (rank < rule).to(p.dtype)
    if rule == "continuous" and (t < 1 or variant == "official"):
        return torch.where(upto <= t, 1, ((t - before) / p).clamp(0, 1))
    total = before if rule == "n" else upto
    within = total < t if variant == "official" else (total <= t) | torch.full_like(total, t >= 1, dtype=torch.bool)
    return within.to(p.dtype)


def smallest_covering(
    covered: Tensor, pixels: Tensor, thresholds: Sequence[float], wanted: float
) -> tuple[float, float]:
    """The first of the rising thresholds at which at least `wanted` of the truth is covered, else the last; the share.

    Raises ValueError where there are no pixels.
    """
    if not float(pixels) > 0:
        raise ValueError("no pixel with a class to measure the coverage on")
    shares = (covered / pixels).tolist()
    for threshold, share in zip(thresholds, shares, strict=True):
        if share >= wanted:
            return threshold, share
    return thresholds[-1], shares[-1]


def conformal_threshold(
    covered: Tensor, units: Tensor, thresholds: Sequence[float], wanted: float
) -> tuple[float, float]:
    """The first of the rising thresholds at which the sets of a new unit hold the truth with probability `wanted`.

    covered (M,): summed over the calibration units, whether (0 or 1) or how far (a share) the truth is covered at each
    threshold; units: their number n. The sum has to reach (n + 1) wanted: of 0 and 1 that is split conformal
    prediction, T at the ceil((n + 1) wanted)-th smallest of the thresholds from which on each unit is covered; of
    shares it is conformal risk control (A. N. Angelopoulos et al., ICLR 2024). It holds for units that are exchangeable
    with the new one. Returns the threshold, the last one where none is enough, and the share of the n covered there.
    Raises ValueError where there are no units.
    """
    if not float(units) > 0:
        raise ValueError("no unit to measure the coverage on")
    found, share = smallest_covering(covered, units + 1, thresholds, wanted)
    return found, share * float(units + 1) / float(units)
