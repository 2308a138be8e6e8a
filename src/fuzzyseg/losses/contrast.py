"""InfoNCE loss between features, for given positives and negatives.

A. van den Oord, Y. Li, O. Vinyals, "Representation learning with contrastive predictive coding", 2018. The loss is
computed in fp32 (fp64 stays fp64) as a log-sum-exp. Anchors are processed in checkpointed chunks, whose similarities
are recomputed in the backward pass, so memory does not grow with anchors times negatives. Notation: N anchors; R rows
of negatives; K negatives per anchor.
"""

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from fuzzyseg.losses.base import at_least_fp32, full_precision


def unit(features: Tensor, axis: int = 1) -> Tensor:
    """Normalise features to unit length along `axis`, in fp32 (fp64 stays fp64); zeros stay zero."""
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
    classes: tuple[Tensor, Tensor] | None = None,
    chunk: int = 2**24,
) -> Tensor:
    """Return -log(e^{a.p/t} / (e^{a.p/t} + sum over the anchor's negatives of e^{a.n/t})): (N,), with gradient.

    anchors, positives (N,D) and negatives (R,D), usually of unit length (`unit`). index (N,K): row indices of each
    anchor's negatives. Without it, the negatives are all rows, or those that are True in `kept` (R,) and share no class
    with the anchor; `classes` contains the classes of anchors and negatives, as indices (N,) and (R,) or bool sets
    (N,C) and (R,C). An anchor without negatives has loss 0. chunk: maximum number of similarities (with `index`, of
    gathered feature elements) in memory at once.
    """
    assert positives.shape == anchors.shape  # (1,D) would be broadcast
    assert index is None or (kept is None and classes is None)

    def part(rows: slice) -> Tensor:
        with full_precision(anchors.device):  # recomputed in the backward pass, where autocast may be on
            a, p, n = (at_least_fp32(each) for each in (anchors[rows], positives[rows], negatives))
            positive = (a * p).sum(1, keepdim=True)
            if index is None:
                counts = _counts(rows, kept, classes)
                negative = a @ n.T if counts is None else torch.where(counts, a @ n.T, -torch.inf)
            else:
                negative = torch.einsum("nd,nkd->nk", a, n[index[rows]])
            first = torch.zeros(len(a), dtype=torch.long, device=a.device)
            return F.cross_entropy(torch.cat([positive, negative], 1) / temperature, first, reduction="none")

    each = len(negatives) if index is None else index.shape[1] * anchors.shape[1]
    size = max(1, chunk // max(each, 1))
    if size >= len(anchors):
        return part(slice(None))
    slices = [slice(start, start + size) for start in range(0, len(anchors), size)]
    return torch.cat([checkpoint(part, rows, use_reentrant=False, preserve_rng_state=False) for rows in slices])


def _counts(rows: slice, kept: Tensor | None, classes: tuple[Tensor, Tensor] | None) -> Tensor | None:
    """Return which negatives apply to these anchors: (n,R) or (R,) bool; None means all."""
    if classes is None:
        return kept
    ours, theirs = classes[0][rows], classes[1]
    different = ours.unsqueeze(1) != theirs if ours.dim() == 1 else ours.float() @ theirs.float().T == 0
    return different if kept is None else different & kept
