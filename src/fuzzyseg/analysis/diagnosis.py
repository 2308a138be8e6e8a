"""All that is measured on labelled images, in one object that adds up over images."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from fuzzyseg.analysis.calibration import Calibration, count_calibration
from fuzzyseg.analysis.cases import Cases, count_cases
from fuzzyseg.analysis.confusions import Confusions, count_confusions
from fuzzyseg.analysis.pixels import Pixels
from fuzzyseg.analysis.sizes import Sizes, count_sizes


class Diagnosis(NamedTuple):
    """Counts over the pixels whose truth is known; they add up over images."""

    sizes: Sizes
    cases: Cases
    calibration: Calibration
    confusions: Confusions

    def plus(self, other: Diagnosis) -> Diagnosis:
        """The counts of both."""
        return Diagnosis(
            self.sizes.plus(other.sizes),
            self.cases.plus(other.cases),
            self.calibration.plus(other.calibration),
            self.confusions.plus(other.confusions),
        )

    def brief(self) -> dict[str, Any]:
        """What is logged during training: coverage, top-1 accuracy, K, ECE, share and score of each case."""
        pixels = max(1, int(self.sizes.pixels.sum()))
        return {
            "coverage": int(self.sizes.covered.sum()) / pixels,
            "top1": int(self.sizes.top1.sum()) / pixels,
            "k_histogram": [count / pixels for count in self.sizes.pixels.tolist()],
            "ece": self.calibration.error(),
            "cases": self.cases.numbers(brief=True),
        }

    def numbers(self) -> dict[str, Any]:
        """Everything, in plain numbers: shares are of the pixels whose truth is known, classes are indices."""
        return {
            "pixels": int(self.sizes.pixels.sum()),
            **self.brief(),
            "mean_k": self.sizes.mean_k(),
            "by_k": self.sizes.numbers(),
            "cases": self.cases.numbers(),
            "effect": self.cases.effect(),
            "reliability": self.calibration.numbers(),
            "confusions": self.confusions.numbers(),
        }


def diagnose(pixels: Pixels, target: Tensor) -> Diagnosis:
    """The counts of what `look` saw in one batch; target as there."""
    return Diagnosis(
        count_sizes(pixels), count_cases(pixels), count_calibration(pixels), count_confusions(pixels, target)
    )
