"""One chunk of pixels (C,P) on the CPU by torch.compile: the maps of `cpu`, computed row by row in one fused loop.

Up to `WIDEST` classes, over which the loop is unrolled: compilation takes about ten seconds for each combination of
number of classes and options. The run time does not depend on the data.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from fuzzyseg.losses.fpl.options import FPLOptions
from fuzzyseg.losses.kernels import cpu
from fuzzyseg.losses.kernels.cpu import Pixels
from fuzzyseg.losses.kernels.cpu_assignment import comparators

WIDEST = 32
"""The largest number of classes: above it unrolled code grows too large to compile."""

NARROWEST = 1024
"""Least number of pixels for which the compiled form is used."""

Maps = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None]
"""Gradient (C,P), loss, weight, K, confidence, label and cross entropy on it, (P,) each."""


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
    """FPL. z, t (C,P); threshold (P,) or 0-dim; scale (P,) or 0-dim multiplies the gradient."""
    if scale is None:
        scale = z.new_ones(())
    if len(z) > WIDEST or z.shape[1] < NARROWEST:
        return cpu.fuzzy_pixels(z, t, threshold, options, scale, out, cross_entropy=cross_entropy)
    one = z.new_ones(())
    limit, factor = (
        x.to(z.dtype).expand(z.shape[1]).contiguous() for x in (threshold, one if scale is None else scale)
    )
    function = _compiled(len(z), options, cross_entropy)
    gradient, loss, weight, k, confidence, label, entropy = function(z.contiguous(), t.contiguous(), limit, factor)
    if out is not None:
        out.copy_(gradient)
    return Pixels(loss, weight, k, confidence, label.long(), entropy)


@cache
def _compiled(
    classes: int, options: FPLOptions, cross_entropy: bool
) -> Callable[[Tensor, Tensor, Tensor, Tensor], Maps]:
    network = tuple((i, j) for i, j, _, _ in comparators(classes, classes))

    def function(z: Tensor, t: Tensor, threshold: Tensor, scale: Tensor) -> Maps:
        return rows(z, t, threshold, scale, options, network, cross_entropy=cross_entropy)

    # By default the compiler would split so many rows into several loops with buffers between them, at half the speed.
    return torch.compile(function, dynamic=True, fullgraph=True, options={"max_fusion_size": 100_000})


def rows(
    z: Tensor,
    t: Tensor,
    threshold: Tensor,
    scale: Tensor,
    options: FPLOptions,
    network: tuple[tuple[int, int], ...],
    *,
    cross_entropy: bool,
) -> Maps:
    """What is compiled: all of it by rows (P,)."""
    p = list(torch.softmax(t, 0).unbind(0))
    ordered = list(p)
    for i, j in network:
        ordered[i], ordered[j] = torch.maximum(ordered[i], ordered[j]), torch.minimum(ordered[i], ordered[j])
    k, last, after, inside, beyond = _rank(ordered, threshold, options)
    fraction, q, share = None, after, k
    if options.continuous(len(p)):
        remaining = threshold - inside
        fraction = torch.where((k < options.cap(len(p))) & (remaining > 0), (remaining / after).clamp(max=1), 0.0)
        inside, q, share = inside + fraction * after, after + fraction * (beyond - after), k + fraction
    weight = options.weight_of(inside, q, share)
    positive = _lowest(p, last, k)
    label = torch.zeros_like(k)
    for i in range(len(p) - 1, -1, -1):
        label = torch.where(p[i] == ordered[0], float(i), label)
    between = None if fraction is None else _first(p, positive, after)
    student = list(z.unbind(0))
    loss, gradient = _student(student, positive, between, fraction, weight * scale)
    shown = k if fraction is None else k + (fraction > 0).to(k.dtype)
    entropy = _cross_entropy(student, label) if cross_entropy else None
    return torch.stack(gradient), loss * weight, weight, shown, ordered[0], label, entropy


def _cross_entropy(z: list[Tensor], label: Tensor) -> Tensor:
    largest = z[0]
    for value in z[1:]:
        largest = torch.maximum(largest, value)
    total, own = torch.zeros_like(largest), torch.zeros_like(largest)
    for i, value in enumerate(z):
        total = total + torch.exp(value - largest)
        own = torch.where(label == i, value, own)
    return total.log() - (own - largest)


def _rank(
    ordered: list[Tensor], threshold: Tensor, options: FPLOptions
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """K, the probabilities at ranks K, K + 1, the sum up to K, and the probability at K + 2."""
    limit = threshold if options.variant == "official" else torch.where(threshold >= 1, torch.inf, threshold)
    k, last, after, inside = torch.ones_like(ordered[0]), ordered[0], ordered[1], ordered[0]
    beyond = ordered[min(2, len(ordered) - 1)]
    total = ordered[0]
    for n in range(1, options.cap(len(ordered))):  # rank n + 1
        before, total = total, total + ordered[n]
        if isinstance(options.rule, int):
            more = torch.full_like(k, n + 1) <= options.rule
        else:
            bound = before if options.rule == "n" else total
            more = bound < limit if options.variant == "official" else bound <= limit
        k = torch.where(more, float(n + 1), k)
        last = torch.where(more, ordered[n], last)
        after = torch.where(more, ordered[n + 1], after)
        beyond = torch.where(more, ordered[min(n + 2, len(ordered) - 1)], beyond)
        inside = torch.where(more, total, inside)
    return k, last, after, inside, beyond


def _lowest(p: list[Tensor], last: Tensor, k: Tensor) -> list[Tensor]:
    """Bool rows: the K most probable classes, equal ones by index."""
    wanted = k
    for row in p:
        wanted = wanted - (row > last).to(k.dtype)
    positive = []
    for row in p:
        equal = row == last
        positive.append((row > last) | (equal & (wanted > 0)))
        wanted = wanted - equal.to(k.dtype)
    return positive


def _first(p: list[Tensor], positive: list[Tensor], value: Tensor) -> list[Tensor]:
    """Bool rows: the lowest class with this probability that is not positive."""
    found, open_ = [], torch.ones_like(value, dtype=torch.bool)
    for row, inside in zip(p, positive, strict=True):
        here = (row == value) & ~inside & open_
        found.append(here)
        open_ = open_ & ~here
    return found


def _student(
    z: list[Tensor],
    positive: list[Tensor],
    between: list[Tensor] | None,
    fraction: Tensor | None,
    scale: Tensor,
) -> tuple[Tensor, list[Tensor]]:
    """Eq. 7 and `scale` times its gradient, as in `cpu.fuzzy_loss_stable`."""
    nothing = torch.full_like(scale, -torch.inf)
    top, low = nothing, nothing
    own = torch.zeros_like(scale)
    for i, value in enumerate(z):
        top = torch.maximum(top, torch.where(positive[i], -value, -torch.inf))
        if between is not None:
            own = torch.where(between[i], value, own)
        outside = ~positive[i] if between is None else ~(positive[i] | between[i])
        low = torch.maximum(low, torch.where(outside, value, -torch.inf))
    upper = lower = torch.zeros_like(scale)
    if fraction is not None:
        top = torch.maximum(top, torch.where(fraction > 0, -own, -torch.inf))
        low = torch.maximum(low, torch.where(fraction < 1, own, -torch.inf))
        upper = torch.where(fraction > 0, fraction * torch.exp(-own - top), 0.0)
        lower = torch.where(fraction < 1, (1 - fraction) * torch.exp(own - low), 0.0)
    ups, downs, e = torch.zeros_like(scale), torch.zeros_like(scale), []
    for i, value in enumerate(z):
        e.append(torch.exp(torch.where(positive[i], -value - top, value - low)))
        ups = ups + torch.where(positive[i], e[i], 0.0)
        outside = ~positive[i] if between is None else ~(positive[i] | between[i])
        downs = downs + torch.where(outside, e[i], 0.0)
    product = (ups * (downs + lower) + upper * downs).clamp(min=torch.finfo(scale.dtype).tiny)
    x = top + low + product.log()
    part = scale * torch.sigmoid(x) / product
    lift, push, middle = -part * (downs + lower), part * (ups + upper), part * (lower * ups - upper * downs)
    gradient = [torch.where(positive[i], lift, push) * e[i] for i in range(len(z))]
    if between is not None:
        gradient = [torch.where(between[i], middle, gradient[i]) for i in range(len(z))]
    return F.softplus(x, threshold=50.0), gradient
