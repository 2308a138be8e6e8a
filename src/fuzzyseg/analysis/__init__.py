"""Statistics of a network's fuzzy sets on images with masks. Numbers and maps; `report` draws them."""

from __future__ import annotations

from fuzzyseg.analysis.diagnosis import Diagnosis, diagnose
from fuzzyseg.analysis.pixels import PixelMaps, pixel_maps
from fuzzyseg.analysis.table import LEVELS, THRESHOLDS, Confident, ThresholdTable, count_confident, count_thresholds
from fuzzyseg.analysis.threshold import (
    conformal_threshold,
    coverage_by_threshold,
    fitted_temperature,
    smallest_covering,
)

__all__ = [
    "LEVELS",
    "THRESHOLDS",
    "Confident",
    "Diagnosis",
    "PixelMaps",
    "ThresholdTable",
    "conformal_threshold",
    "count_confident",
    "count_thresholds",
    "coverage_by_threshold",
    "diagnose",
    "fitted_temperature",
    "pixel_maps",
    "smallest_covering",
]
