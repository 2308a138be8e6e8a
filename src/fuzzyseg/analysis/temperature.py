"""Temperature scaling: one number that makes a network's probabilities as likely as they can be."""

from __future__ import annotations

import torch
from torch import Tensor

from fuzzyseg.losses.arguments import at_least_fp32

LARGEST = 10.0
"""Temperatures are sought from 1 / LARGEST to LARGEST: a network that is never wrong has none of its own."""


def fitted_temperature(logits: Tensor, target: Tensor) -> float:
    """The temperature t at which softmax(logits / t) gives the targets the largest likelihood.

    logits (N,C); target (N,), classes. C. Guo et al., "On Calibration of Modern Neural Networks", ICML 2017. The
    negative log likelihood is convex in 1 / t; its slope, the sum of the expected minus the true logits, is brought to
    0 by bisection. Raises ValueError where there is no target.
    """
    if not len(target):
        raise ValueError("no pixel with a class to fit the temperature on")
    with torch.no_grad():
        z = at_least_fp32(logits)
        z = z - z.gather(1, target.long().unsqueeze(1))  # the true one becomes 0
        low, high = 1 / LARGEST, LARGEST
        for _ in range(40):
            middle = (low * high) ** 0.5
            slope = (torch.softmax(z / middle, 1) * z).sum(1).mean()
            # above 0: 1 / t is too large
            low, high = (middle, high) if float(slope) > 0 else (low, middle)
    return float((low * high) ** 0.5)
