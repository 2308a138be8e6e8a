"""Mean, standard deviation and paired differences of scores, with confidence intervals."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """Mean of n paired differences and half-width of its 95% confidence interval (infinite for one pair)."""

    mean: float
    half: float
    n: int

    @property
    def gain(self) -> bool:
        """Whether the interval lies above 0; only then is a gain claimed."""
        return self.mean - self.half > 0

    @property
    def loss(self) -> bool:
        """Whether the interval lies below 0."""
        return self.mean + self.half < 0

    def __str__(self) -> str:
        if self.n < 2:
            return f"{self.mean:+.2f} (one pair: no interval)"
        return f"{self.mean:+.2f} ± {self.half:.2f} (n = {self.n})"


def paired(differences: Sequence[float], folds: int | None = None) -> Interval | None:
    """Return Student's t confidence interval for paired differences, or None if there are none.

    folds: number of folds of a cross-validation. Since the folds share training images, the variance of the mean is s^2
    (1/n + 1/(folds - 1)) instead of s^2/n, where 1/(folds - 1) is the ratio of validation to training images (the
    corrected resampled t-test, Nadeau and Bengio 2003).
    """
    n = len(differences)
    if n < 2:
        return Interval(differences[0], math.inf, 1) if differences else None
    from scipy.stats import t as student_t  # slow import (half a second)

    variance = 1 / n + (0 if folds is None else 1 / (folds - 1))
    half = float(student_t.ppf(0.975, n - 1)) * statistics.stdev(differences) * math.sqrt(variance)
    return Interval(statistics.mean(differences), half, n)


def interval(differences: Sequence[float], folds: int | None = None) -> str:
    """Return `paired` as text, or a dash for None."""
    return str(paired(differences, folds) or "-")


def mean_std(values: Sequence[float]) -> str:
    """Return the mean and sample standard deviation as text, or a dash if there are no values."""
    if not values:
        return "-"
    return f"{statistics.mean(values):.2f}" + (f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else "")
