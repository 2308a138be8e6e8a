"""Calibration of the threshold T by the coverage of the fuzzy sets on labelled images."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fuzzyseg.losses.base import at_least_fp32
from fuzzyseg.losses.fpl.assignment import sorted_classes
from fuzzyseg.losses.fpl.options import PAPER, FPLOptions
from fuzzyseg.losses.supervised import VOID


def coverage_by_threshold(
    logits: Tensor, target: Tensor, thresholds: Sequence[float], options: FPLOptions = PAPER
) -> tuple[Tensor, Tensor]:
    """Return, per predicted class, the true class's summed membership by threshold (C,M) and pixel counts (C,).

    The predicted class is the most probable one. Both tensors are on the CPU, the sums in fp64, and can be added over
    batches. logits (B,C,H,W). target (B,H,W): true classes, 255 for void. With the rule `continuous`, memberships may
    be fractions.
    """
    with torch.no_grad():
        # one sort is enough for all thresholds: a class's rank and cumulative sum determine for which T it is positive
        ranking, known = sorted_classes(at_least_fp32(logits)), target != VOID
        truth = torch.where(known, target, 0).long().unsqueeze(1)
        rank = (ranking.order == truth).byte().argmax(1, keepdim=True)  # from 0
        p, upto = (side.gather(1, rank)[known.unsqueeze(1)] for side in (ranking.p, ranking.total))
        before = torch.where(rank > 0, ranking.total.gather(1, (rank - 1).clamp(min=0)), 0)[known.unsqueeze(1)]
        rank, label = rank[known.unsqueeze(1)], ranking.order[:, 0][known].cpu()
        classes = logits.shape[1]
        cap = options.cap(classes)
        covered = []
        for t in thresholds:
            share = torch.where(rank == 0, 1, _share(p, before, upto, rank, t, options))
            share = torch.where(rank < cap, share, 0).cpu().double()
            covered.append(torch.zeros(classes, dtype=torch.float64).index_add_(0, label, share))
    return torch.stack(covered, 1), torch.bincount(label, minlength=classes)


def _share(p: Tensor, before: Tensor, upto: Tensor, rank: Tensor, t: float, options: FPLOptions) -> Tensor:
    """Return the membership at T = t of a class with probability p. before, upto: cumulative sums without/with it."""
    rule, variant = options.rule, options.variant
    if isinstance(rule, int):
        return (rank < rule).to(p.dtype)
    if rule == "continuous" and (t < 1 or variant == "official"):
        return torch.where(upto <= t, 1, ((t - before) / p).clamp(0, 1))
    total = before if rule == "n" else upto
    within = total < t if variant == "official" else (total <= t) | torch.full_like(total, t >= 1, dtype=torch.bool)
    return within.to(p.dtype)


def smallest_covering(
    covered: Tensor, pixels: Tensor, thresholds: Sequence[float], coverage: float
) -> tuple[float, float]:
    """Return the smallest threshold whose coverage is at least `coverage`, or else the largest, and its coverage.

    thresholds: in ascending order. Raises ValueError if there are no pixels.
    """
    if not float(pixels) > 0:
        raise ValueError("no pixel with a class to measure the coverage on")
    shares = (covered / pixels).tolist()
    for threshold, share in zip(thresholds, shares, strict=True):
        if share >= coverage:
            return threshold, share
    return thresholds[-1], shares[-1]


def conformal_threshold(
    covered: Tensor, units: Tensor, thresholds: Sequence[float], coverage: float
) -> tuple[float, float]:
    """Return the smallest threshold whose sets contain the true class of a new unit with probability `coverage`.

    covered (M,): coverage of the true class (0, 1 or a fraction) at each threshold, in ascending order, summed over the
    calibration units. units: number of calibration units, n. The sum must reach (n + 1) * coverage. For values of 0 and
    1, this is split conformal prediction, otherwise conformal risk control (A. N. Angelopoulos et al., ICLR 2024). The
    calibration units and the new unit are assumed to be exchangeable. Returns the threshold, or the largest one if none
    suffices, and the fraction covered at it. Raises ValueError if there are no units.
    """
    if not float(units) > 0:
        raise ValueError("no unit to measure the coverage on")
    threshold, share = smallest_covering(covered, units + 1, thresholds, coverage)
    return threshold, share * float(units + 1) / float(units)
