"""Expected gain of FPL for a network, estimated from the runs in docs/evidence.md."""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import t as student_t

FEATURE = "case 2 / (case 2 + case 3)"
"""Fraction of the pixels with a wrong label whose fuzzy set contains the true class."""


class Verdict(NamedTuple):
    """word: "helps", "does not help" or "cannot tell". sentence: explanation with numbers."""

    word: str
    sentence: str


@cache
def measured() -> list[dict[str, Any]]:
    """Return the cells of the regime map, as written by recipes/evidence/regime_map.py."""
    cells: list[dict[str, Any]] = json.loads(Path(__file__).with_name("regime.json").read_text("utf-8"))["cells"]
    return cells


def verdict(share: float, cells: Sequence[Mapping[str, Any]] | None = None) -> Verdict:
    """Predict whether FPL beats hard labels if `share` of the wrong labels have the true class in their fuzzy set.

    Fits a line to the cells, weighted by their number of pairs, and computes the 95% confidence interval of its value
    at `share`. Each cell is the mean gain for one dataset, method, number of labels and T. "cannot tell": the interval
    contains 0, `share` is outside the range of the cells, or there are fewer than four cells. cells: mappings with
    `FEATURE`, `gain` in points of mIoU, and `pairs`. Default: `measured()`.
    """
    known = measured() if cells is None else cells
    x, gain, pairs = (np.array([cell[name] for cell in known], float) for name in (FEATURE, "gain", "pairs"))
    here_too = f"the sets of {100 * share:.3g} % of the wrong pseudo labels contain the true class"
    if len(x) < 4 or not x.min() <= share <= x.max():
        return Verdict("cannot tell", f"{here_too}, and the {len(x)} cells with measured runs do not cover this value.")
    design = np.stack([np.ones_like(x), x], 1)
    inverse = np.linalg.pinv(design.T * pairs @ design)
    line = inverse @ (design.T @ (pairs * gain))
    variance = pairs @ (gain - design @ line) ** 2 / (len(x) - 2)
    here = np.array([1.0, share])
    middle = float(here @ line)
    half = float(student_t.ppf(0.975, len(x) - 2) * np.sqrt(variance * (here @ inverse @ here)))
    word = "helps" if middle - half > 0 else "does not help" if middle + half < 0 else "cannot tell"
    return Verdict(
        word,
        f"in {len(x)} measured cells ({int(pairs.sum())} pairs of runs, small networks), FPL minus hard labels is "
        f"{middle:+.1f} [{middle - half:+.1f}, {middle + half:+.1f}] points of mIoU where, as here, "
        f"{here_too}.",
    )
