"""Which cells take which part in a contrast, by how sure a teacher is of them.

Y. Wang et al., "Semi-supervised semantic segmentation using unreliable pseudo-labels", CVPR 2022: what is unsure is
still surely not of the classes that rank low.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fuzzyseg.losses.arguments import at_size
from fuzzyseg.ops.masked_sampling import masked_quantile

UNKNOWN = 255
"""Label of a cell that takes no part."""


@torch.no_grad()
def entropy_of(logits: Tensor, size: Sequence[int]) -> Tensor:
    """The entropy (B,H,W) of the probabilities that logits (B,C,h,w) give at `size`, in nats."""
    log_p = torch.log_softmax(at_size(logits, size), 1)
    return -(log_p.exp() * log_p).sum(1)


class Parts(NamedTuple):
    """(N,C) bool: what cell n is to class c. present: a sure cell of it; anchor: and one to learn; key: a negative."""

    present: Tensor
    anchor: Tensor
    key: Tensor


@torch.no_grad()
def contrast_parts(
    p: Tensor, label: Tensor, entropy: Tensor, *, share: float, ranks: tuple[int, int], confidence: float
) -> Parts:
    """p (N,C): the teacher's probabilities. label (N,): class or 255. entropy (M,) of the last M cells, the unlabelled.

    Sure is what lies in the lowest `share` of the entropies, unsure what lies in the highest; every labelled cell is
    both. An anchor's own class has more than `confidence`. An unsure unlabelled cell is a negative of the classes with
    a rank (0: the most probable) in [ranks[0], ranks[1]); a labelled one of the classes other than its own with a rank
    below ranks[0]. With so few classes that no rank lies in the window it starts at the last one. Raises ValueError for
    a window without a rank.
    """
    if not 1 <= ranks[0] < ranks[1]:
        raise ValueError(f"ranks: found {ranks}, expected two ranks from 1, the smaller one first")
    classes, first = p.shape[1], len(label) - len(entropy)
    known = label != UNKNOWN
    sure = known & _labelled_or(entropy <= masked_quantile(entropy, known[first:], share), first)
    unsure = known & _labelled_or(entropy >= masked_quantile(entropy, known[first:], 1 - share), first)
    own = label.unsqueeze(1) == torch.arange(classes, device=label.device)
    low, high = min(ranks[0], classes - 1), ranks[1]
    rank = p.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    unlikely = torch.cat([(rank < low)[:first] & ~own[:first], ((rank >= low) & (rank < high))[first:]])
    present = own & sure.unsqueeze(1)
    return Parts(present, present & (p > confidence), unlikely & unsure.unsqueeze(1))


def mean_over_classes(loss: Tensor, parts: Parts, held: Tensor) -> Tensor:
    """The mean of loss (C,M) over its anchors, summed over the classes that have an anchor and, held (C,), negatives.

    It is divided by the number of classes that are present; 0 where that is below 2.
    """
    able, count = parts.anchor.any(0) & (held > 0), parts.present.any(0).sum()
    total = torch.where(able, loss.mean(1), 0).sum()
    return torch.where(count >= 2, total / count.clamp(min=1), 0)


def _labelled_or(chosen: Tensor, first: int) -> Tensor:
    """True for the `first` cells, then `chosen`."""
    return torch.cat([chosen.new_ones(first), chosen])
