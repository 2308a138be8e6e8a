"""Losses of one chunk of pixels (C,P) on the CPU: maps (P,), and the gradient in `out` (C,P).

Masks are floating point, since comparisons that write bool are several times slower on the CPU. The loss of a
chunk is first computed assuming K = 1, which needs only the two largest probabilities. Pixels whose K may be larger are
gathered, recomputed by the general algorithm and written back; if they are the majority, the general algorithm handles
the whole chunk.

The loss and its gradient (Eq. 7 and 8) have closed forms. Let Y be the positives, c the class with fractional
membership f (continuous rule only), and e = exp(z) up to a factor per pixel. Then, excluding c from both sums,

    x = log( sum over Y of 1/e * (sum outside Y of e + (1 - f) e_c) + f / e_c * sum outside Y of e ),   L = softplus(x)

and the derivatives are the following, divided by 1 + exp x:

    z_j outside Y:  e_j (sum over Y of 1/e + f / e_c)
    z_i in Y:       -1/e_i (sum outside Y of e + (1 - f) e_c)
    z_c:            (1 - f) e_c sum over Y of 1/e - f / e_c sum outside Y of e
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fuzzyseg.losses.fpl.options import FPLOptions
from fuzzyseg.losses.kernels import cpu_assignment
from fuzzyseg.losses.kernels.cpu_assignment import Members, first_class, only_class

MAX_PARTIAL = 0.6
"""Fraction of pixels with K > 1 above which the general algorithm handles the whole chunk."""

SMALLEST = 1e-26
"""Minimum exp(z - largest z) for which 1 / e and sums of products do not overflow fp32 for thousands of classes."""


class Pixels(NamedTuple):
    """Maps (P,): weighted loss, weight, K, and the teacher's top probability and class.

    k=None means 1 everywhere. cross_entropy: the student's cross entropy on the label, if requested.
    """

    loss: Tensor
    weight: Tensor
    k: Tensor | None
    confidence: Tensor
    label: Tensor
    cross_entropy: Tensor | None


class Exponentials(NamedTuple):
    """exp(z - largest) of a chunk (C,P), the largest z (P,), and whether all exponentials are above `SMALLEST`.

    If they are not, either each side needs a separate scale or a logit is NaN.
    """

    e: Tensor
    largest: Tensor
    in_range: bool


def exponentials_of(z: Tensor) -> Exponentials:
    """Compute the exponentials of logits (C,P)."""
    largest = z.amax(0)
    e = torch.sub(z, largest).exp_()
    return Exponentials(e, largest, bool(e.amin() > SMALLEST))


def hard_pixels(z: Tensor, t: Tensor, scale: Tensor | None, out: Tensor | None) -> Pixels:
    """Compute the hard loss. z, t (C,P); scale (P,) or 0-dim multiplies the gradient."""
    largest = t.amax(0)
    marks = torch.eq(t, largest, out=torch.empty_like(t))
    confidence = torch.sub(t, largest).exp_().sum(0).reciprocal()
    label = top_class(marks)
    one = torch.ones_like(confidence)
    e, top, _ = exponentials_of(z)
    total = e.sum(0)
    index = label.unsqueeze(0)
    # A NaN in the teacher's logits reaches the loss only through the confidence.
    loss = total.log() - (z.gather(0, index).squeeze(0) - top) + (confidence - confidence)
    if out is not None:
        part = one if scale is None else one * scale
        torch.mul(e, part / total, out=out)
        out.scatter_add_(0, index, -part.unsqueeze(0))
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
    p = torch.softmax(t, 0)
    exponentials = exponentials_of(z)
    first, second = cpu_assignment.two_largest(p)
    several = cpu_assignment.may_have_several(first, second, threshold, options, len(p))
    count = int(torch.count_nonzero(several))
    if count > MAX_PARTIAL * len(first) or not exponentials.in_range:
        return _in_full(z, p, exponentials, threshold, options, scale, out, cross_entropy=cross_entropy)
    result = _one_positive(p, exponentials.e, first, second, options, scale, out, cross_entropy=cross_entropy)
    if count == 0:
        return result
    where = several.nonzero().squeeze(1)
    part = Exponentials(exponentials.e.index_select(1, where), exponentials.largest, True)
    gradient = None if out is None else torch.empty_like(part.e)
    again = _in_full(
        z,
        p.index_select(1, where),
        part,
        threshold[where] if threshold.dim() else threshold,
        options,
        scale[where] if scale is not None and scale.dim() else scale,
        gradient,
        cross_entropy=cross_entropy,
    )
    if out is not None and gradient is not None:
        out.index_copy_(1, where, gradient)
    result = result._replace(k=torch.ones_like(first))
    for target, piece in zip(result, again, strict=True):
        if target is not None and piece is not None:
            target.index_copy_(0, where, piece)
    return result


def _one_positive(
    p: Tensor,
    e: Tensor,
    first: Tensor,
    second: Tensor,
    options: FPLOptions,
    scale: Tensor | None,
    out: Tensor | None,
    *,
    cross_entropy: bool,
) -> Pixels:
    """Compute Eq. 9 for K = 1: cross entropy times the weight. first, second: the two largest p, which must differ."""
    one = torch.ones_like(first)
    weight = options.weight_of(first, second, one)
    marks = torch.eq(p, first, out=torch.empty_like(p))
    label = only_class(marks).clamp_(max=len(p) - 1)  # the caller recomputes ties
    index = label.unsqueeze(0)
    positive = e.gather(0, index).squeeze(0)
    others = torch.addcmul(e, e, marks, value=-1, out=torch.empty_like(e) if out is None else out)
    rest = others.sum(0)
    if out is not None:
        part = (weight if scale is None else weight * scale) / (positive + rest)
        out.mul_(part)
        out.scatter_(0, index, (-part * rest).unsqueeze(0))
    entropy = (rest / positive).log1p()
    return Pixels(entropy * weight, weight, None, first, label, entropy if cross_entropy else None)


def _in_full(
    z: Tensor,
    p: Tensor,
    exponentials: Exponentials,
    threshold: Tensor,
    options: FPLOptions,
    scale: Tensor | None,
    out: Tensor | None,
    *,
    cross_entropy: bool,
) -> Pixels:
    """Compute the loss for any K. z is read only if the exponentials are not in range."""
    ranked = cpu_assignment.rank(p, threshold, options)
    chosen = cpu_assignment.members(p, ranked)
    label = top_class(torch.eq(p, ranked.largest, out=torch.empty_like(p)))
    factor = ranked.weight if scale is None else ranked.weight * scale
    if exponentials.in_range:
        loss = fuzzy_loss(exponentials.e, chosen, factor, out)
    else:
        loss = fuzzy_loss_stable(z, chosen, factor, out)
    entropy = None
    if cross_entropy:
        index = label.unsqueeze(0)
        e, largest, in_range = exponentials
        positive = e.gather(0, index).log() if in_range else z.gather(0, index) - largest
        entropy = e.sum(0).log() - positive.squeeze(0)
    k = ranked.k if ranked.fraction is None else ranked.k + (ranked.fraction > 0)
    return Pixels(loss * ranked.weight, ranked.weight, k, ranked.largest, label, entropy)


def top_class(marks: Tensor) -> Tensor:
    """Return the lowest class marked with 1 in each column of `marks` (C,P)."""
    ones = torch.ones(len(marks), dtype=marks.dtype, device=marks.device) @ marks
    return first_class(marks) if bool((ones > 1).any()) else only_class(marks)


def fuzzy_loss(e: Tensor, chosen: Members, scale: Tensor, out: Tensor | None) -> Tensor:
    """Return L (P,) and write `scale` * gradient to `out` (C,P). e must be in range. Overwrites chosen.positive."""
    push = torch.addcmul(e, e, chosen.positive, value=-1, out=torch.empty_like(e) if out is None else out)
    lift = chosen.positive.div_(e)
    fractional = None if chosen.between is None else e.gather(0, chosen.between).squeeze(0)
    between = None if fractional is None else (fractional, fractional.reciprocal())
    return _combine(lift, push, between, chosen, scale, None, out)


def fuzzy_loss_stable(z: Tensor, chosen: Members, scale: Tensor, out: Tensor | None) -> Tensor:
    """Compute `fuzzy_loss` for any logits by scaling each side by its largest term. A NaN in z gives NaN."""
    inside = chosen.positive > 0
    top = torch.where(inside, -z, -torch.inf)
    low = torch.where(inside, -torch.inf, z)
    if chosen.between is not None:
        low.scatter_(0, chosen.between, -torch.inf)
    top_max, low_max, between = top.amax(0), low.amax(0), None
    if chosen.between is not None and chosen.fraction is not None:
        fractional = z.gather(0, chosen.between).squeeze(0)
        top_max = torch.maximum(top_max, torch.where(chosen.fraction > 0, -fractional, -torch.inf))
        low_max = torch.maximum(low_max, torch.where(chosen.fraction < 1, fractional, -torch.inf))
        between = torch.exp(fractional - low_max), torch.exp(-fractional - top_max)
    lift, push = torch.exp(top - top_max), torch.exp(low - low_max)
    return _combine(lift, push, between, chosen, scale, top_max + low_max, out)


def _combine(
    lift: Tensor,
    push: Tensor,
    between: tuple[Tensor, Tensor] | None,
    chosen: Members,
    scale: Tensor,
    shift: Tensor | None,
    out: Tensor | None,
) -> Tensor:
    """Compute the loss and its gradient from the terms of both sides.

    between (P,): e and 1 / e of the fractional class, each up to its side's factor; None if there is no such class.
    shift: the logarithm of the product of these factors; None means 0.
    """
    f, place = chosen.fraction, chosen.between
    upper, lower = lift.new_zeros(()), lift.new_zeros(())
    if between is not None and f is not None and place is not None:
        push.scatter_(0, place, 0)
        # With f = 0 or 1, the exponential on the other side may overflow.
        upper, lower = torch.where(f > 0, f * between[1], 0), torch.where(f < 1, (1 - f) * between[0], 0)
    ups, downs = lift.sum(0), push.sum(0)
    product = ups * (downs + lower) + upper * downs
    if shift is None:
        loss, part = product.log1p(), scale / (1 + product)
    else:
        product = product.clamp(min=torch.finfo(product.dtype).tiny)
        x = shift + product.log()
        loss, part = F.softplus(x, threshold=50.0), scale * torch.sigmoid(x) / product
    if out is not None:
        torch.mul(push, part * (ups + upper), out=out)
        out.addcmul_(lift, part * (downs + lower), value=-1)
        if place is not None:
            out.scatter_(0, place, (part * (lower * ups - upper * downs)).unsqueeze(0))
    return loss
