"""`analyse`: what FPL sees of a trained network, or would see before any training."""

from __future__ import annotations

from fuzzyseg.experiment.analysing.analyse import analyse

__all__ = ["analyse"]
