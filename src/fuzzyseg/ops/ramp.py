"""Weights that grow at the start of a training."""

from __future__ import annotations

import math


def linear_ramp(step: int, steps: int) -> float:
    """Grows evenly from 1 / steps at step 0 to 1 at `steps` - 1 and stays there; 1 throughout if steps is 0."""
    return min(1.0, (step + 1) / steps) if steps > 0 else 1.0


def sigmoid_ramp(step: int, steps: int) -> float:
    """exp(-5 (1 - t)^2), t = step / steps up to 1: from exp(-5) = .0067 at step 0 to 1; 1 throughout if steps is 0.

    S. Laine, T. Aila, "Temporal ensembling for semi-supervised learning", ICLR 2017.
    """
    return math.exp(-5 * (1 - min(1.0, step / steps)) ** 2) if steps > 0 else 1.0
