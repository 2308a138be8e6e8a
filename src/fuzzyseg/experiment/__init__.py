"""The one place where all parts meet: what the commands do, from Python."""

from __future__ import annotations

from fuzzyseg.experiment.analysing import analyse
from fuzzyseg.experiment.converting import Conversion, convert
from fuzzyseg.experiment.training import RunResult, train
from fuzzyseg.experiment.using import evaluate, predict

__all__ = ["Conversion", "RunResult", "analyse", "convert", "evaluate", "predict", "train"]
