"""Policies of the threshold T: schedule, calibration and conformal sets."""

from __future__ import annotations

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

    def check(self) -> None:
        """Raise ValueError naming the option, the value found and the values allowed."""
        for name, value in self._asdict().items():
            if not 0 < value <= 1:
                raise ValueError(f"{name}: found {value}, expected a number in (0, 1]")


class Calibrated(NamedTuple):
    """T is measured on labelled pixels by the caller, who sets `PixelLossModule.threshold`; until then `start`."""

    start: float = 0.9

    def check(self) -> None:
        """Raise ValueError naming the option, the value found and the values allowed."""
        if not 0 < self.start <= 1:
            raise ValueError(f"start: found {self.start}, expected a number in (0, 1]")


class Conformal(NamedTuple):
    """T and a temperature of the teacher's logits are set by the caller, from split conformal prediction sets.

    classes: None for one T, or C for a T of each class, selected by the teacher's most probable class.
    """

    start: float = 0.9
    classes: int | None = None

    def check(self) -> None:
        """Raise ValueError naming the option, the value found and the values allowed."""
        Calibrated(self.start).check()
        if self.classes is not None and self.classes < 2:
            raise ValueError(f"classes: found {self.classes}, expected None or at least 2")


Policy = Schedule | Adaptive | Calibrated | Conformal
