"""torch.compile version of `cpu`: computes the maps of a chunk of pixels (C,P) in one fused loop on the CPU.

The loop is unrolled over the classes, up to `WIDEST`. Compilation takes about ten seconds per combination of class
count and options; the run time does not depend on the data. `cpu` handles the continuous rule and the cross entropy
that `balance` needs.
"""

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
"""Maximum number of classes; for more, the unrolled code is too large to compile."""

NARROWEST = 1024
"""Minimum number of pixels for which the compiled form is used."""

Maps = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
"""Gradient (C,P), loss, weight, K, confidence and label, (P,) each."""


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
    scale = z.new_ones(()) if scale is None else scale
    if len(z) > WIDEST or z.shape[1] < NARROWEST or cross_entropy or options.continuous(len(z)):
        return cpu.fuzzy_pixels(z, t, threshold, options, scale, out, cross_entropy=cross_entropy)
    limit, factor = (x.to(z.dtype).expand(z.shape[1]).contiguous() for x in (threshold, scale))
    function = _compiled(len(z), options)
    gradient, loss, weight, k, confidence, label = function(z.contiguous(), t.contiguous(), limit, factor)
    if out is not None:
        out.copy_(gradient)
    return Pixels(loss, weight, k, confidence, label.long(), None)


@cache
def _compiled(classes: int, options: FPLOptions) -> Callable[[Tensor, Tensor, Tensor, Tensor], Maps]:
    network = tuple((i, j) for i, j, _, _ in comparators(classes, classes))

    def function(z: Tensor, t: Tensor, threshold: Tensor, scale: Tensor) -> Maps:
        return rows(z, t, threshold, scale, options, network)

    # By default the compiler splits this many rows into several loops with buffers in between, which is half as fast.
    return torch.compile(function, dynamic=True, fullgraph=True, options={"max_fusion_size": 100_000})


def rows(
    z: Tensor, t: Tensor, threshold: Tensor, scale: Tensor, options: FPLOptions, network: tuple[tuple[int, int], ...]
) -> Maps:
    """Compute the maps from rows (P,); this is the function that is compiled."""
    p = list(torch.softmax(t, 0).unbind(0))
    ordered = list(p)
    for i, j in network:
        ordered[i], ordered[j] = torch.maximum(ordered[i], ordered[j]), torch.minimum(ordered[i], ordered[j])
    k, last, after, inside = _rank(ordered, threshold, options)
    weight = options.weight_of(inside, after, k)
    positive = _lowest(p, last, k)
    label = torch.zeros_like(k)
    for i in range(len(p) - 1, -1, -1):
        label = torch.where(p[i] == ordered[0], float(i), label)
    loss, gradient = _student(list(z.unbind(0)), positive, weight * scale)
    return torch.stack(gradient), loss * weight, weight, k, ordered[0], label


def _rank(ordered: list[Tensor], threshold: Tensor, options: FPLOptions) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return K, the probabilities at ranks K and K + 1, and the sum up to rank K."""
    limit = threshold if options.variant == "official" else torch.where(threshold >= 1, torch.inf, threshold)
    k, last, after, inside = torch.ones_like(ordered[0]), ordered[0], ordered[1], ordered[0]
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
        inside = torch.where(more, total, inside)
    return k, last, after, inside


def _lowest(p: list[Tensor], last: Tensor, k: Tensor) -> list[Tensor]:
    """Return membership rows (bool) of the K most probable classes; ties are resolved by index."""
    remaining = k
    for row in p:
        remaining = remaining - (row > last).to(k.dtype)
    positive = []
    for row in p:
        equal = row == last
        positive.append((row > last) | (equal & (remaining > 0)))
        remaining = remaining - equal.to(k.dtype)
    return positive


def _student(z: list[Tensor], positive: list[Tensor], scale: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return Eq. 7 and its gradient times `scale`, as in `cpu.fuzzy_loss_stable`."""
    top = low = torch.full_like(scale, -torch.inf)
    for value, inside in zip(z, positive, strict=True):
        top = torch.maximum(top, torch.where(inside, -value, -torch.inf))
        low = torch.maximum(low, torch.where(inside, -torch.inf, value))
    ups, downs, e = torch.zeros_like(scale), torch.zeros_like(scale), []
    for value, inside in zip(z, positive, strict=True):
        e.append(torch.exp(torch.where(inside, -value - top, value - low)))
        ups = ups + torch.where(inside, e[-1], 0.0)
        downs = downs + torch.where(inside, 0.0, e[-1])
    product = (ups * downs).clamp(min=torch.finfo(scale.dtype).tiny)
    x = top + low + product.log()
    part = scale * torch.sigmoid(x) / product
    gradient = [torch.where(inside, -part * downs, part * ups) * each for inside, each in zip(positive, e, strict=True)]
    return F.softplus(x, threshold=50.0), gradient
