"""Semi-supervised semantic segmentation with Fuzzy Positive Learning.

Importing the package imports no submodules; public names are loaded on first access. The losses require only torch,
while `train` and `load` require all dependencies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fuzzyseg.experiment.train import train
    from fuzzyseg.inference import load
    from fuzzyseg.losses import (
        FuzzyPositiveLoss,
        assign_fuzzy_positives,
        fuzzy_membership,
        fuzzy_positive_loss,
        fuzzy_positive_weight,
        positive_gradient_score,
        weight_curve,
    )
    from fuzzyseg.ops.mix import Mixed

__version__ = "0.1.0"

__all__ = [
    "FuzzyPositiveLoss",
    "Mixed",
    "__version__",
    "assign_fuzzy_positives",
    "fuzzy_membership",
    "fuzzy_positive_loss",
    "fuzzy_positive_weight",
    "load",
    "positive_gradient_score",
    "train",
    "weight_curve",
]


def __getattr__(name: str) -> Any:
    """Load a public name on first access."""
    if name not in __all__:
        raise AttributeError(f"module 'fuzzyseg' has no attribute {name!r}; it has {', '.join(__all__)}")
    if name == "train":
        from fuzzyseg.experiment.train import train

        return train
    if name == "load":
        from fuzzyseg.inference import load

        return load
    if name == "Mixed":
        from fuzzyseg.ops.mix import Mixed

        return Mixed
    from fuzzyseg import losses

    return getattr(losses, name)


def __dir__() -> list[str]:
    """List the public names."""
    return __all__
