"""Training of a method: the loop, optimisers, state and checkpoints."""

from fuzzyseg.engine.checkpoint import CheckpointError, check_resumable
from fuzzyseg.engine.optim import build_optimisers
from fuzzyseg.engine.state import Outcome, Settings
from fuzzyseg.engine.step_values import NonFiniteLoss
from fuzzyseg.engine.trainer import fit

__all__ = ["CheckpointError", "NonFiniteLoss", "Outcome", "Settings", "build_optimisers", "check_resumable", "fit"]
