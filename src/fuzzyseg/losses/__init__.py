"""Losses as pure functions, and the small modules that hold them."""

from __future__ import annotations

from fuzzyseg.losses.consistency import confidence_map, js_divergence, kl_divergence, squared_error
from fuzzyseg.losses.fuzzy import (
    assign_fuzzy_positives,
    fuzzy_positive_loss,
    fuzzy_positive_weight,
)
from fuzzyseg.losses.module import FuzzyPositiveLoss, PixelFunction, PixelLossModule
from fuzzyseg.losses.pixel import PixelLoss, fuzzy, hard, soft
from fuzzyseg.losses.reduction import masked_mean
from fuzzyseg.losses.score import positive_gradient_score
from fuzzyseg.losses.supervised import SupervisedLoss, cross_entropy_map, dice_loss, ohem_keep
from fuzzyseg.losses.weight import weight_curve

PIXEL_LOSSES: dict[str, PixelFunction] = {"hard": hard, "soft": soft, "fuzzy": fuzzy}
"""The pseudo-label losses by name."""

__all__ = [
    "PIXEL_LOSSES",
    "FuzzyPositiveLoss",
    "PixelFunction",
    "PixelLoss",
    "PixelLossModule",
    "SupervisedLoss",
    "assign_fuzzy_positives",
    "confidence_map",
    "cross_entropy_map",
    "dice_loss",
    "fuzzy_positive_loss",
    "fuzzy_positive_weight",
    "js_divergence",
    "kl_divergence",
    "masked_mean",
    "ohem_keep",
    "positive_gradient_score",
    "squared_error",
    "weight_curve",
]
