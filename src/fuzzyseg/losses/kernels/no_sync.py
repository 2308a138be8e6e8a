"""Losses of one chunk of pixels (C,P) on an accelerator, computed as in `cpu` but without host synchronisation."""

import torch
from torch import Tensor

from fuzzyseg.losses.fpl.assignment import assign
from fuzzyseg.losses.fpl.options import FPLOptions
from fuzzyseg.losses.fpl.weight import assignment_weight
from fuzzyseg.losses.kernels.cpu import Pixels, fuzzy_loss_stable
from fuzzyseg.losses.kernels.cpu_assignment import Members


def hard_pixels(z: Tensor, t: Tensor, scale: Tensor | None, out: Tensor | None) -> Pixels:
    """Compute the hard loss. z, t (C,P); scale (P,) or 0-dim multiplies the gradient."""
    confidence, label = torch.softmax(t, 0).max(0)
    one = torch.ones_like(confidence)
    loss = _cross_entropy(z, label) + (confidence - confidence)
    if out is not None:
        torch.softmax(z, 0, out=out)
        out.scatter_add_(0, label.unsqueeze(0), -one.unsqueeze(0))
        if scale is not None:
            out.mul_(scale)
    return Pixels(loss, one, None, confidence, label, loss)


def fuzzy_pixels(
    z: Tensor,
    t: Tensor,
    threshold: Tensor,
    options: FPLOptions,
    scale: Tensor | None,
    out: Tensor | None,
    *,
    cross_entropy: bool,
) -> Pixels:
    """Compute the FPL loss. z, t (C,P); threshold (P,) or 0-dim; scale (P,) or 0-dim multiplies the gradient."""
    limit = threshold.unsqueeze(0) if threshold.dim() else threshold
    assignment = assign(t.unsqueeze(0), limit, options)
    weight = assignment_weight(assignment, options)[0, 0]
    membership = assignment.membership()[0].to(z.dtype)
    if assignment.fraction is None:
        chosen = Members(membership, None, None)
    else:
        between = assignment.order.gather(1, assignment.k)[0]
        chosen = Members(membership.scatter(0, between, 0), between, assignment.fraction[0, 0])
    loss = fuzzy_loss_stable(z, chosen, weight if scale is None else weight * scale, out)
    label = assignment.order[0, 0]
    entropy = _cross_entropy(z, label) if cross_entropy else None
    k = assignment.positives()[0, 0].to(z.dtype)
    return Pixels(loss * weight, weight, k, assignment.p[0, 0], label, entropy)


def _cross_entropy(z: Tensor, label: Tensor) -> Tensor:
    largest = z.amax(0)
    positive = z.gather(0, label.unsqueeze(0)).squeeze(0)
    return (z - largest).exp_().sum(0).log_() - (positive - largest)
