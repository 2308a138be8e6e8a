"""What FPL sees: the fuzzy sets of a network, held against the truth."""

from __future__ import annotations

from fuzzyseg.analysis.coverage import Coverage, fuzzy_coverage
from fuzzyseg.analysis.threshold import coverage_by_threshold, smallest_covering

__all__ = ["Coverage", "coverage_by_threshold", "fuzzy_coverage", "smallest_covering"]
