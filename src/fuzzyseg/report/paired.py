"""Mean, standard deviation and paired differences of scores, with their confidence intervals."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """Mean of n paired differences and half the width of its 95 % confidence interval; infinite for one pair."""

    mean: float
    half: float
    n: int

    @property
    def gain(self) -> bool:
        """Whether the interval lies above 0: only then a gain is claimed."""
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
    """The interval of paired differences by Student's t; None without any.

    folds: of a cross-validation, whose runs share training images: the mean's variance is s^2 (1/n + 1/(folds - 1))
    in place of s^2/n, with 1/(folds - 1) the ratio of validation to training images (the corrected resampled t-test,
    Nadeau and Bengio 2003).
    """
    n = len(differences)
    if n < 2:
        return Interval(differences[0], math.inf, 1) if differences else None
    from scipy.stats import t as student_t  # takes half a second

    variance = 1 / n + (0 if folds is None else 1 / (folds - 1))
    half = float(student_t.ppf(0.975, n - 1)) * statistics.stdev(differences) * math.sqrt(variance)
    return Interval(statistics.mean(differences), half, n)


def interval(differences: Sequence[float], folds: int | None = None) -> str:
    """`paired` in words, and a dash for None."""
    return str(paired(differences, folds) or "-")


def mean_std(values: Sequence[float]) -> str:
    """Mean and sample standard deviation."""
    if not values:
        return "-"
    return f"{statistics.mean(values):.2f}" + (f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else "")
