"""What FPL sees: the fuzzy sets of a network, held against the truth."""

from __future__ import annotations

from fuzzyseg.analysis.coverage import Coverage, fuzzy_coverage

__all__ = ["Coverage", "fuzzy_coverage"]
