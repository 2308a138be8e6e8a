"""Weights that grow at the start of a training."""

from __future__ import annotations


def linear_ramp(step: int, steps: int) -> float:
    """Grows evenly from 1 / steps at step 0 to 1 at `steps` - 1 and stays there; 1 throughout if steps is 0."""
    return min(1.0, (step + 1) / steps) if steps > 0 else 1.0
