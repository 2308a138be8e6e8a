"""The one place where all parts meet: what the commands do, from Python."""

from fuzzyseg.experiment.analyse import analyse
from fuzzyseg.experiment.convert import Conversion, convert
from fuzzyseg.experiment.export_run import export
from fuzzyseg.experiment.load_run import evaluate, predict
from fuzzyseg.experiment.train import RunResult, train

__all__ = ["Conversion", "RunResult", "analyse", "convert", "evaluate", "export", "predict", "train"]
