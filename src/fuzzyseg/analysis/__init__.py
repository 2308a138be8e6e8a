"""What FPL sees: the fuzzy sets of a network, held against the truth. Numbers and maps; nothing is drawn here."""

from __future__ import annotations

from fuzzyseg.analysis.calibration import Calibration
from fuzzyseg.analysis.cases import Cases
from fuzzyseg.analysis.confident import LEVELS, Confident, count_confident
from fuzzyseg.analysis.confusions import Confusions
from fuzzyseg.analysis.coverage import Coverage, fuzzy_coverage
from fuzzyseg.analysis.diagnosis import Diagnosis, diagnose
from fuzzyseg.analysis.pixels import Pixels, look
from fuzzyseg.analysis.sizes import Sizes
from fuzzyseg.analysis.table import THRESHOLDS, ThresholdTable, count_thresholds
from fuzzyseg.analysis.temperature import fitted_temperature
from fuzzyseg.analysis.threshold import conformal_threshold, coverage_by_threshold, smallest_covering

__all__ = [
    "LEVELS",
    "THRESHOLDS",
    "Calibration",
    "Cases",
    "Confident",
    "Confusions",
    "Coverage",
    "Diagnosis",
    "Pixels",
    "Sizes",
    "ThresholdTable",
    "conformal_threshold",
    "count_confident",
    "count_thresholds",
    "coverage_by_threshold",
    "diagnose",
    "fitted_temperature",
    "fuzzy_coverage",
    "look",
    "smallest_covering",
]
