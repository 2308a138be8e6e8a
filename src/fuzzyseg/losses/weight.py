"""The weight of a pixel as a curve: Eq. 11 and 16 of the FPL paper."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fuzzyseg.losses.options import WeightKind, check_options

_CURVES: dict[str, Callable[[Tensor, Tensor, Tensor, float], Tensor]] = {
    "concave": lambda m, q, gap, a: torch.log1p(a * gap) / torch.log1p(a * m),
    "linear": lambda m, q, gap, a: gap / m,
    "convex": lambda m, q, gap, a: gap / (m + 4 * q),
    "convex1": lambda m, q, gap, a: gap / (m + q),
    "none": lambda m, q, gap, a: 1 + (m - m),  # a NaN stays one
}


def weight_curve(m: Tensor, q: Tensor, *, kind: WeightKind = "concave", a: float = 50.0) -> Tensor:
    """The weight where the positives have mean probability m > 0 and the best negative q: 1 at q = 0, 0 at q >= m.

    `concave` is Eq. 11, log(1 + A (m - q)) / log(1 + A m); Eq. 16 has `linear`, (m - q) / m, and `convex`,
    (m - q) / (m + 4 q); `convex1`, (m - q) / (m + q), is that of two of the releases; `none` is 1.
    """
    check_options(weight=kind, a=a)
    return _CURVES[kind](m, q, (m - q).clamp(min=0), a)
