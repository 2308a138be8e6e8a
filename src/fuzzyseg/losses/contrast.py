"""Contrast between features: InfoNCE over positives and negatives that are given.

A. van den Oord, Y. Li, O. Vinyals, "Representation learning with contrastive predictive coding", 2018. Computed in
fp32 (fp64 stays), as a log-sum-exp, a part of the anchors at a time: similarities are made anew in the backward pass,
so that memory does not grow with anchors times negatives. N anchors, R rows of negatives, K negatives an anchor.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from fuzzyseg.losses.base import at_least_fp32, full_precision


def unit(features: Tensor, axis: int = 1) -> Tensor:
    """Features of length 1 along `axis`, in fp32 (fp64 stays); a zero stays zero."""
    with full_precision(features.device):
        return F.normalize(at_least_fp32(features), dim=axis, eps=1e-12)


def info_nce(
    anchors: Tensor,
    positives: Tensor,
    negatives: Tensor,
    *,
    temperature: float,
    index: Tensor | None = None,
    kept: Tensor | None = None,
    anchor_classes: Tensor | None = None,
    negative_classes: Tensor | None = None,
    chunk: int = 2**24,
) -> Tensor:
    """-log(e^{a.p/t} / (e^{a.p/t} + sum over the anchor's negatives of e^{a.n/t})): (N,), with gradient.

    anchors, positives (N,D) and negatives (R,D) are of length 1 (`unit`) or as the caller wants them compared. index
    (N,K): the rows that are the anchor's negatives; None: all R. kept (R,) bool: rows that may count. A row counts only
    where its classes share none with the anchor's: anchor_classes and negative_classes are class indices, (N,) and
    (R,), or bool sets, (N,C) and (R,C). An anchor without negatives has the loss 0. chunk: similarities that are held
    at a time, times D where `index` is given. Raises ValueError for shapes that do not fit.
    """
    _check(anchors, positives, negatives, anchor_classes, negative_classes)
    if not len(anchors):
        return at_least_fp32(anchors).sum(1)
    each = len(negatives) if index is None else index.shape[1] * anchors.shape[1]
    size = max(1, chunk // max(each, 1))
    parts = []
    with full_precision(anchors.device):
        for start in range(0, len(anchors), size):
            rows = slice(start, start + size)
            arguments = (
                at_least_fp32(anchors[rows]),
                at_least_fp32(positives[rows]),
                at_least_fp32(negatives),
                temperature,
                None if index is None else index[rows],
                kept,
                None if anchor_classes is None else anchor_classes[rows],
                negative_classes,
            )
            if size >= len(anchors):  # held at once anyway
                parts.append(_part(*arguments))
            else:
                parts.append(checkpoint(_part, *arguments, use_reentrant=False, preserve_rng_state=False))
    return torch.cat(parts)


def _part(
    anchors: Tensor,
    positives: Tensor,
    negatives: Tensor,
    temperature: float,
    index: Tensor | None,
    kept: Tensor | None,
    anchor_classes: Tensor | None,
    negative_classes: Tensor | None,
) -> Tensor:
    with full_precision(anchors.device):  # recomputed in the backward pass, where autocast may stand otherwise
        positive = (anchors * positives).sum(1, keepdim=True)
        if index is None:
            negative = anchors @ negatives.T
        else:
            negative = torch.einsum("nd,nkd->nk", anchors, negatives[index])
        excluded = _excluded(index, kept, anchor_classes, negative_classes)
        if excluded is not None:
            negative = torch.where(excluded, -torch.inf, negative)
        similarities = torch.cat([positive, negative], 1) / temperature
        first = torch.zeros(len(anchors), dtype=torch.long, device=anchors.device)
        return F.cross_entropy(similarities, first, reduction="none")


def _excluded(
    index: Tensor | None, kept: Tensor | None, anchor_classes: Tensor | None, negative_classes: Tensor | None
) -> Tensor | None:
    """(n,R), (1,R) or (n,K) bool: negatives that do not count; None: all count."""
    excluded = None
    if kept is not None:
        excluded = ~kept.unsqueeze(0) if index is None else ~kept[index]
    if anchor_classes is None or negative_classes is None:
        return excluded
    if anchor_classes.dim() == 1:
        theirs = negative_classes.unsqueeze(0) if index is None else negative_classes[index]
        shared = anchor_classes.unsqueeze(1) == theirs
    elif index is None:
        shared = anchor_classes.float() @ negative_classes.float().T > 0
    else:
        shared = (anchor_classes.unsqueeze(1) & negative_classes[index]).any(2)
    return shared if excluded is None else shared | excluded


def _check(
    anchors: Tensor,
    positives: Tensor,
    negatives: Tensor,
    anchor_classes: Tensor | None,
    negative_classes: Tensor | None,
) -> None:
    if anchors.dim() != 2 or positives.shape != anchors.shape:
        raise ValueError(
            f"anchors, positives: found shapes {tuple(anchors.shape)}, {tuple(positives.shape)}, expected (N,D) twice"
        )
    if negatives.dim() != 2 or negatives.shape[1] != anchors.shape[1]:
        raise ValueError(f"negatives: found shape {tuple(negatives.shape)}, expected (R,{anchors.shape[1]})")
    if (anchor_classes is None) != (negative_classes is None):
        raise ValueError("anchor_classes, negative_classes: found one of them, expected both or neither")
    if anchor_classes is not None and negative_classes is not None:
        if (len(anchor_classes), len(negative_classes)) != (len(anchors), len(negatives)):
            raise ValueError(
                f"found classes of {len(anchor_classes)} anchors and {len(negative_classes)} negatives, "
                f"expected {len(anchors)} and {len(negatives)}"
            )
        if anchor_classes.shape[1:] != negative_classes.shape[1:] or anchor_classes.dim() > 2:
            raise ValueError("anchor_classes, negative_classes: expected class indices (N,), (R,) or sets (N,C), (R,C)")
