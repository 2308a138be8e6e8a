"""Policies for the threshold T: schedule, calibration and conformal sets. The configuration validates their ranges."""

from typing import NamedTuple

from fuzzyseg.losses.fpl.adaptive_threshold import Adaptive


class Schedule(NamedTuple):
    """T changes linearly from `start` to `end`, both in (0, 1], over the first fraction `share` of training."""

    start: float = 0.95
    end: float = 0.85
    share: float = 1.0

    def at(self, step: int, total: int) -> float:
        """Return T after `step` of `total` steps."""
        done = min(1.0, step / (self.share * max(total, 1)))
        return self.start + (self.end - self.start) * done


class Calibrated(NamedTuple):
    """T is `start` until the caller sets `PixelLossModule.threshold` to a value measured on labelled pixels."""

    start: float = 0.9


class Conformal(NamedTuple):
    """The caller sets T, and a temperature for the teacher's logits, by split conformal prediction.

    classes: None for a single T, or C for one T per class, selected by the teacher's most probable class.
    """

    start: float = 0.9
    classes: int | None = None


Policy = Schedule | Adaptive | Calibrated | Conformal
