"""What FPL sees: the fuzzy sets of a network, held against the truth. Numbers and maps; nothing is drawn here."""

from __future__ import annotations

from fuzzyseg.analysis.calibration import Calibration
from fuzzyseg.analysis.cases import Cases
from fuzzyseg.analysis.confusions import Confusions
from fuzzyseg.analysis.coverage import Coverage, fuzzy_coverage
from fuzzyseg.analysis.diagnosis import Diagnosis, diagnose
from fuzzyseg.analysis.pixels import Pixels, look
from fuzzyseg.analysis.sizes import Sizes
from fuzzyseg.analysis.table import THRESHOLDS, ThresholdTable, count_thresholds
from fuzzyseg.analysis.threshold import coverage_by_threshold, smallest_covering

__all__ = [
    "THRESHOLDS",
    "Calibration",
    "Cases",
    "Confusions",
    "Coverage",
    "Diagnosis",
    "Pixels",
    "Sizes",
    "ThresholdTable",
    "count_thresholds",
    "coverage_by_threshold",
    "diagnose",
    "fuzzy_coverage",
    "look",
    "smallest_covering",
]
