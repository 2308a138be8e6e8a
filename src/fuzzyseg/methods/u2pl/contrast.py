"""Anchors, positives and negatives of U2PL's contrastive loss (Y. Wang et al., CVPR 2022)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fuzzyseg.losses.base import at_size
from fuzzyseg.losses.supervised import VOID


@torch.no_grad()
def entropy_of(logits: Tensor, size: Sequence[int]) -> Tensor:
    """Return the entropy (B,H,W), in nats, of the softmax of logits (B,C,h,w) resized to `size`."""
    log_p = torch.log_softmax(at_size(logits, size), 1)
    return -(log_p.exp() * log_p).sum(1)


class Parts(NamedTuple):
    """Masks (N,C) bool, one row per position.

    present: reliable positions of the class. anchor: anchors of the class. key: negatives for the class.
    """

    present: Tensor
    anchor: Tensor
    key: Tensor


@torch.no_grad()
def contrast_parts(
    p: Tensor, label: Tensor, entropy: Tensor, *, share: float, ranks: tuple[int, int], confidence: float
) -> Parts:
    """Assign roles to N feature-map positions, of which the last M belong to unlabelled images.

    p (N,C): the teacher's probabilities. label (N,): class or 255. entropy (M,): unlabelled positions only. Reliable
    positions have the lowest `share` of entropies and unreliable ones the highest; labelled positions are both. Anchors
    are reliable positions whose class has a probability above `confidence`. An unreliable unlabelled position is a
    negative for the classes whose rank (0: most probable) is in [ranks[0], ranks[1]); a labelled one is a negative for
    the classes other than its own with a rank below ranks[0]. If there are too few classes for the window, it starts at
    the last rank. Raises ValueError for an empty window.
    """
    if not 1 <= ranks[0] < ranks[1]:
        raise ValueError(f"ranks: found {ranks}, expected two ranks from 1 in ascending order")
    classes, first = p.shape[1], len(label) - len(entropy)
    known = label != VOID
    reliable = known & _labelled_or(entropy <= valid_quantile(entropy, known[first:], share), first)
    unreliable = known & _labelled_or(entropy >= valid_quantile(entropy, known[first:], 1 - share), first)
    is_label = label.unsqueeze(1) == torch.arange(classes, device=label.device)
    low, high = min(ranks[0], classes - 1), ranks[1]
    rank = p.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    unlikely = torch.cat([(rank < low)[:first] & ~is_label[:first], ((rank >= low) & (rank < high))[first:]])
    present = is_label & reliable.unsqueeze(1)
    return Parts(present, present & (p > confidence), unlikely & unreliable.unsqueeze(1))


def mean_of_classes(loss: Tensor, parts: Parts, bank_sizes: Tensor) -> Tensor:
    """Average loss (C,M) over anchors, sum it over classes and divide by the number of present classes: 0-dim.

    Only classes with anchors and negatives contribute. The result is 0 if fewer than 2 classes are present. bank_sizes
    (C,): number of filled rows per class.
    """
    able, count = parts.anchor.any(0) & (bank_sizes > 0), parts.present.any(0).sum()
    total = torch.where(able, loss.mean(1), 0).sum()
    return torch.where(count >= 2, total / count.clamp(min=1), 0)


def _labelled_or(chosen: Tensor, first: int) -> Tensor:
    """Prepend `first` True values, for the labelled positions, to `chosen`."""
    return torch.cat([chosen.new_ones(first), chosen])


def valid_quantile(values: Tensor, valid: Tensor, share: float) -> Tensor:
    """Return the quantile of the valid values at `share` in [0, 1]: 0-dim, or +inf if none is valid.

    Interpolates linearly, like `numpy.quantile`. values and valid (bool) have the same shape. Does not synchronise with
    a GPU.
    """
    ordered = torch.where(valid, values, torch.inf).flatten().sort().values
    last = (valid.sum() - 1).clamp(min=0)
    place = share * last.double()
    low, high = ordered.gather(0, torch.stack([place.floor(), place.ceil()]).long())  # a 0-dim index would synchronise
    return torch.where(high.isfinite(), low + (place - place.floor()).to(values.dtype) * (high - low), torch.inf)


def draw_members(members: Tensor, count: int) -> Tensor:
    """Sample `count` indices of True values per row of members (R,N) bool, with replacement: (R,count) int64.

    Uses torch's global generator and does not synchronise with a GPU. Meaningless for rows without a True value.
    """
    running = members.long().cumsum(1)
    total = running[:, -1:]
    chance = torch.rand(len(members), count, device=members.device)
    target_rank = torch.minimum((chance * total).long(), total - 1) + 1  # rank among the members, from 1
    return torch.searchsorted(running, target_rank).clamp(max=members.shape[1] - 1)
