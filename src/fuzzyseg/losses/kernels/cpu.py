"""One chunk of pixels (C,P) of one image, on the CPU: maps (P,) and, into `out` (C,P), the gradient.

Everything stays in the cache; masks are floating-point, because comparisons that write bool are several times slower
there. A chunk is read as if every pixel had one positive, which needs the two largest probabilities only; the pixels
where Alg. 1 may keep more are gathered, treated in full, and put back (or all are, where they are most).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fuzzyseg.losses.fpl.weight import weight_of
from fuzzyseg.losses.kernels.closed_form import Scaled, far_apart, one_class, scaled, several_classes
from fuzzyseg.losses.kernels.cpu_assignment import first_class, may_be_several, members, only_class, rank
from fuzzyseg.losses.kernels.sorting_network import two_largest
from fuzzyseg.losses.kernels.types import Options

MOST = 0.6
"""The share of pixels with several positives from which gathering them costs more than it saves."""


class Pixels(NamedTuple):
    """Of each pixel (P,): the weighted loss, the weight, K in full numbers, the teacher's top probability and class.

    k None: 1 everywhere. cross_entropy: of the student on the label, if asked for.
    """

    loss: Tensor
    weight: Tensor
    k: Tensor | None
    confidence: Tensor
    label: Tensor
    cross_entropy: Tensor | None


def hard_pixels(z: Tensor, t: Tensor, scale: Tensor | None, out: Tensor | None) -> Pixels:
    """Cross entropy on the teacher's top class. z, t (C,P); scale (P,) or 0-dim multiplies the gradient."""
    largest = t.amax(0)
    marks = torch.eq(t, largest, out=torch.empty_like(t))
    confidence = torch.sub(t, largest).exp_().sum(0).reciprocal()
    label = top_class(marks)
    one = torch.ones_like(confidence)
    e, top, _ = scaled(z)
    total = e.sum(0)
    index = label.unsqueeze(0)
    # A NaN of the teacher, which has no other way to the loss, goes through its confidence.
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
    options: Options,
    scale: Tensor | None,
    out: Tensor | None,
    *,
    cross_entropy: bool,
) -> Pixels:
    """FPL. z, t (C,P); threshold (P,) or 0-dim; scale (P,) or 0-dim multiplies the gradient."""
    p = torch.softmax(t, 0)
    exponentials = scaled(z)
    first, second = two_largest(p)
    several = may_be_several(first, second, threshold, options)
    count = int(torch.count_nonzero(several))
    if count > MOST * len(first) or not exponentials.narrow:
        return _in_full(z, p, exponentials, threshold, options, scale, out, cross_entropy=cross_entropy)
    found = _one_positive(p, exponentials.e, first, second, options, scale, out, cross_entropy=cross_entropy)
    if count == 0:
        return found
    where = several.nonzero().squeeze(1)
    part = Scaled(exponentials.e.index_select(1, where), exponentials.largest, True)
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
    found = found._replace(k=torch.ones_like(first))
    for whole, piece in zip(found, again, strict=True):
        if whole is not None and piece is not None:
            whole.index_copy_(0, where, piece)
    return found


def _one_positive(
    p: Tensor,
    e: Tensor,
    first: Tensor,
    second: Tensor,
    options: Options,
    scale: Tensor | None,
    out: Tensor | None,
    *,
    cross_entropy: bool,
) -> Pixels:
    """K = 1: Eq. 9, cross entropy times the weight. first, second: the two largest of p, not equal."""
    one = torch.ones_like(first)
    weight = weight_of(first, second, one, kind=options.weight, a=options.a, variant=options.variant)
    marks = torch.eq(p, first, out=torch.empty_like(p))
    label = only_class(marks).clamp_(max=len(p) - 1)  # where several are equal it is found anew
    entropy = one_class(e, label, marks, weight if scale is None else weight * scale, out)
    return Pixels(entropy * weight, weight, None, first, label, entropy if cross_entropy else None)


def _in_full(
    z: Tensor,
    p: Tensor,
    exponentials: Scaled,
    threshold: Tensor,
    options: Options,
    scale: Tensor | None,
    out: Tensor | None,
    *,
    cross_entropy: bool,
) -> Pixels:
    """Any K. Where the exponentials are narrow, z is not read."""
    ranked = rank(p, threshold, options)
    chosen = members(p, ranked)
    label = top_class(torch.eq(p, ranked.largest, out=torch.empty_like(p)))
    factor = ranked.weight if scale is None else ranked.weight * scale
    if exponentials.narrow:
        loss = several_classes(exponentials.e, chosen, factor, out)
    else:
        loss = far_apart(z, chosen, factor, out)
    entropy = None
    if cross_entropy:
        index = label.unsqueeze(0)
        e, largest, narrow = exponentials
        own = e.gather(0, index).log() if narrow else z.gather(0, index) - largest
        entropy = e.sum(0).log() - own.squeeze(0)
    k = ranked.k if ranked.fraction is None else ranked.k + (ranked.fraction > 0)
    return Pixels(loss * ranked.weight, ranked.weight, k, ranked.largest, label, entropy)


def top_class(marks: Tensor) -> Tensor:
    """The lowest class marked with 1 in each column of (C,P)."""
    ones = torch.ones(len(marks), dtype=marks.dtype, device=marks.device) @ marks
    return first_class(marks) if bool((ones > 1).any()) else only_class(marks)
