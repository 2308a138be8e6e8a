"""Calibration on labelled images: the threshold T that covers enough of the truth, and the temperature."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fuzzyseg.losses.base import at_least_fp32
from fuzzyseg.losses.fpl.assignment import sorted_classes
from fuzzyseg.losses.fpl.options import PAPER, FPLOptions
from fuzzyseg.losses.supervised import VOID

LARGEST = 10.0
"""Temperatures are searched from 1 / LARGEST to LARGEST: a network without errors has no finite optimum."""


def coverage_by_threshold(
    logits: Tensor, target: Tensor, thresholds: Sequence[float], options: FPLOptions = PAPER
) -> tuple[Tensor, Tensor]:
    """Membership of the true class summed over pixels for each threshold (C,M), and the number of pixels (C,).

    Rows are the most probable classes of the pixels; fp64 on the CPU. Counts of several batches add up. logits
    (B,C,H,W). target (B,H,W): true classes, 255 for void. The rule `continuous` counts partial membership.
    """
    with torch.no_grad():
        # one sort serves all thresholds: rank and cumulative sum of a class tell from which T on it is positive
        found, seen = sorted_classes(at_least_fp32(logits)), target != VOID
        truth = torch.where(seen, target, 0).long().unsqueeze(1)
        rank = (found.order == truth).byte().argmax(1, keepdim=True)  # from 0
        p, upto = (side.gather(1, rank)[seen.unsqueeze(1)] for side in (found.p, found.total))
        before = torch.where(rank > 0, found.total.gather(1, (rank - 1).clamp(min=0)), 0)[seen.unsqueeze(1)]
        rank, label = rank[seen.unsqueeze(1)], found.order[:, 0][seen].cpu()
        classes = logits.shape[1]
        cap = options.cap(classes)
        covered = []
        for t in thresholds:
            share = torch.where(rank == 0, 1, _share(p, before, upto, rank, t, options))
            share = torch.where(rank < cap, share, 0).cpu().double()
            covered.append(torch.zeros(classes, dtype=torch.float64).index_add_(0, label, share))
    return torch.stack(covered, 1), torch.bincount(label, minlength=classes)


def _share(p: Tensor, before: Tensor, upto: Tensor, rank: Tensor, t: float, options: FPLOptions) -> Tensor:
    """Membership at T = t of a class with probability p and the cumulative sums before and with it."""
    rule, variant = options.rule, options.variant
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
    """First of the rising thresholds that covers at least the share `wanted`, else the last; and the share it covers.

    Raises ValueError without pixels.
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
    """First of the rising thresholds at which the sets of a new unit hold the truth with probability `wanted`.

    covered (M,): coverage of the truth at each threshold, 0, 1 or a fraction, summed over the calibration units. units:
    their number n. The sum has to reach (n + 1) wanted. For 0 and 1 that is split conformal prediction; for shares it
    is conformal risk control (A. N. Angelopoulos et al., ICLR 2024). It assumes units exchangeable with the new one.
    Returns the threshold, the last if none is enough, and the share covered there. Raises ValueError without units.
    """
    if not float(units) > 0:
        raise ValueError("no unit to measure the coverage on")
    found, share = smallest_covering(covered, units + 1, thresholds, wanted)
    return found, share * float(units + 1) / float(units)


def fitted_temperature(logits: Tensor, target: Tensor) -> float:
    """The temperature t at which softmax(logits / t) has the lowest negative log likelihood.

    logits (N,C). target (N,): classes. C. Guo et al., "On Calibration of Modern Neural Networks", ICML 2017. Raises
    ValueError without targets.
    """
    if not len(target):
        raise ValueError("no pixel with a class to fit the temperature on")
    with torch.no_grad():
        z = at_least_fp32(logits)
        z = z - z.gather(1, target.long().unsqueeze(1))  # the true logit becomes 0
        low, high = 1 / LARGEST, LARGEST
        # the likelihood is convex in 1 / t: bisect its slope, the sum of the expected minus the true logits
        for _ in range(40):
            middle = (low * high) ** 0.5
            slope = (torch.softmax(z / middle, 1) * z).sum(1).mean()
            low, high = (middle, high) if float(slope) > 0 else (low, middle)  # above 0: 1 / t is too large
    return float((low * high) ** 0.5)
