"""Python functions behind the commands. They combine data, method, training loop and evaluation."""

from fuzzyseg.experiment.analyse import analyse
from fuzzyseg.experiment.convert import Conversion, convert
from fuzzyseg.experiment.distill import distill
from fuzzyseg.experiment.export_run import export
from fuzzyseg.experiment.load_run import evaluate, predict
from fuzzyseg.experiment.train import RunResult, train

__all__ = ["Conversion", "RunResult", "analyse", "convert", "distill", "evaluate", "export", "predict", "train"]
