"""Policies of the threshold T: schedule, calibration and conformal sets. The configuration checks their ranges."""

from typing import NamedTuple

from fuzzyseg.losses.fpl.adaptive_threshold import Adaptive


class Schedule(NamedTuple):
    """T changes linearly from `start` to `end`, both in (0, 1], over the first `share` of the training, in (0, 1]."""

    start: float = 0.95
    end: float = 0.85
    share: float = 1.0

    def at(self, step: int, total: int) -> float:
        """T after `step` of `total` steps."""
        done = min(1.0, step / (self.share * max(total, 1)))
        return self.start + (self.end - self.start) * done


class Calibrated(NamedTuple):
    """T is measured on labelled pixels by the caller, who sets `PixelLossModule.threshold`; until then `start`."""

    start: float = 0.9


class Conformal(NamedTuple):
    """T and a temperature of the teacher's logits are set by the caller, from split conformal prediction sets.

    classes: None for one T, or C for a T of each class, selected by the teacher's most probable class.
    """

    start: float = 0.9
    classes: int | None = None


Policy = Schedule | Adaptive | Calibrated | Conformal
