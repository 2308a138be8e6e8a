"""What is asked of the student at the pixels of a chunk (C,P): the loss and its gradient, Eq. 7 and 8, in closed form.

With Y the positives, c the class that is positive by f (of the continuous rule; its part 1 - f is negative), and
e = exp(z) up to a factor of the pixel:

    x = log( sum over Y of 1/e * (sum outside Y of e + (1 - f) e_c) + f / e_c * sum outside Y of e ),   L = softplus(x)

c is in neither sum. The derivative by z_j outside Y is e_j (sum of 1/e + f / e_c) / (1 + exp x), by z_i in Y
-1/e_i (sum of e + (1 - f) e_c) / (1 + exp x), and by z_c what the two of its parts give.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fuzzyseg.losses.kernels.cpu_assignment import Members

NARROW = 1e-26
"""exp(lowest logit - highest) above which 1 / e and all sums of products stay within fp32, for thousands of classes."""


class Scaled(NamedTuple):
    """exp(z - largest) of a chunk (C,P), the largest (P,), and whether it is above `NARROW` everywhere.

    Where it is not, logits lie so far apart that the two sides need factors of their own, or one of them is a NaN.
    """

    e: Tensor
    largest: Tensor
    narrow: bool


def scaled(z: Tensor) -> Scaled:
    """Exponentials of logits (C,P), one for each."""
    largest = z.amax(0)
    e = torch.sub(z, largest).exp_()
    return Scaled(e, largest, bool(e.amin() > NARROW))


def one_class(e: Tensor, label: Tensor, marks: Tensor, scale: Tensor, out: Tensor | None) -> Tensor:
    """-log softmax(z)_label (P,), and into `out` (C,P) `scale` times its gradient. e: narrow; marks: 1 at the label."""
    index = label.unsqueeze(0)
    own = e.gather(0, index).squeeze(0)
    others = torch.addcmul(e, e, marks, value=-1, out=torch.empty_like(e) if out is None else out)
    rest = others.sum(0)
    if out is not None:
        part = scale / (own + rest)
        out.mul_(part)
        out.scatter_(0, index, (-part * rest).unsqueeze(0))
    return (rest / own).log1p()


def several_classes(e: Tensor, chosen: Members, scale: Tensor, out: Tensor | None) -> Tensor:
    """L (P,), and into `out` (C,P) `scale` times its gradient. e: narrow; chosen.positive is overwritten."""
    push = torch.addcmul(e, e, chosen.positive, value=-1, out=torch.empty_like(e) if out is None else out)
    lift = chosen.positive.div_(e)
    if chosen.between is None or chosen.fraction is None:
        ups, downs = lift.sum(0), push.sum(0)
        product = ups * downs
        if out is not None:
            part = scale / (1 + product)
            out.mul_(part * ups).addcmul_(lift, part * downs, value=-1)
        return product.log1p()
    own = e.gather(0, chosen.between).squeeze(0)
    return _with_between(lift, push, own, own.reciprocal(), chosen, scale, None, out)


def far_apart(z: Tensor, chosen: Members, scale: Tensor, out: Tensor | None) -> Tensor:
    """The same for any logits: each side is scaled by its own largest term. A NaN in z gives a NaN."""
    inside = chosen.positive > 0
    top = torch.where(inside, -z, -torch.inf)
    low = torch.where(inside, -torch.inf, z)
    if chosen.between is None or chosen.fraction is None:
        top_max, low_max = top.amax(0), low.amax(0)
        between = None
    else:
        own = z.gather(0, chosen.between).squeeze(0)
        low.scatter_(0, chosen.between, -torch.inf)
        top_max = torch.maximum(top.amax(0), torch.where(chosen.fraction > 0, -own, -torch.inf))
        low_max = torch.maximum(low.amax(0), torch.where(chosen.fraction < 1, own, -torch.inf))
        between = (torch.exp(own - low_max), torch.exp(-own - top_max))
    lift, push = torch.exp(top - top_max), torch.exp(low - low_max)
    shift = top_max + low_max
    if between is not None:
        return _with_between(lift, push, *between, chosen, scale, shift, out)
    nothing = torch.zeros_like(shift)
    return _finish(lift, push, nothing, nothing, scale, shift, out)


def _with_between(
    lift: Tensor,
    push: Tensor,
    own: Tensor,
    inverse: Tensor,
    chosen: Members,
    scale: Tensor,
    shift: Tensor | None,
    out: Tensor | None,
) -> Tensor:
    """own, inverse (P,): e and 1 / e of the class in between, each up to its side's factor."""
    assert chosen.between is not None and chosen.fraction is not None
    f = chosen.fraction
    push.scatter_(0, chosen.between, 0)
    # A side that it has no part in may have a factor under which its exponential overflows.
    upper, lower = torch.where(f > 0, f * inverse, 0), torch.where(f < 1, (1 - f) * own, 0)
    return _finish(lift, push, upper, lower, scale, shift, out, chosen.between)


def _finish(
    lift: Tensor,
    push: Tensor,
    upper: Tensor,
    lower: Tensor,
    scale: Tensor,
    shift: Tensor | None,
    out: Tensor | None,
    between: Tensor | None = None,
) -> Tensor:
    """Loss and gradient from the terms of both sides; shift: the logarithm of their factors, None for 0."""
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
        if between is not None:
            out.scatter_(0, between, (part * (lower * ups - upper * downs)).unsqueeze(0))
    return loss
