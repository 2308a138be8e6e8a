"""Sweeps: expansion of a plan into runs, their execution, and tables of their results."""

from fuzzyseg.experiment.sweeps.grid import Cell, Grid
from fuzzyseg.experiment.sweeps.method_plan import comparison
from fuzzyseg.experiment.sweeps.scheduler import SweepResult, sweep
from fuzzyseg.experiment.sweeps.tables import tables

__all__ = ["Cell", "Grid", "SweepResult", "comparison", "sweep", "tables"]
