"""Semi-supervised semantic segmentation with Fuzzy Positive Learning: a few labelled images, many unlabelled ones.

The loss works in anybody's loop and needs torch alone. `train` and `load` bring in the rest when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from fuzzyseg.experiment import train
    from fuzzyseg.inference import load

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
    """`train` and `load`, imported when they are first asked for."""
    if name == "train":
        from fuzzyseg.experiment import train

        return train
    if name == "load":
        from fuzzyseg.inference import load

        return load
    raise AttributeError(f"module 'fuzzyseg' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    """The public names, the lazy ones too."""
    return __all__
