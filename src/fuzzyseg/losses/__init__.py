"""Loss functions, and modules that store their options."""

from fuzzyseg.losses.ablations import negative, partial
from fuzzyseg.losses.base import masked_mean
from fuzzyseg.losses.confidence_mask import CONFIDENCE, Confidence, ConfidentPixels, under_mask
from fuzzyseg.losses.consistency import confidence_map, kl_divergence, squared_error
from fuzzyseg.losses.fpl.adaptive_threshold import Adaptive, adaptive_threshold
from fuzzyseg.losses.fpl.assignment import assign_fuzzy_positives, fuzzy_membership
from fuzzyseg.losses.fpl.options import SetOptions
from fuzzyseg.losses.fpl.score import positive_gradient_score
from fuzzyseg.losses.fpl.threshold import Calibrated, Conformal, Policy, Schedule
from fuzzyseg.losses.fpl.weight import fuzzy_positive_weight, weight_curve
from fuzzyseg.losses.fuzzy import FuzzyPositiveLoss, fuzzy_positive_loss
from fuzzyseg.losses.pseudo_label import PixelFunction, PixelLoss, PixelLossModule, fuzzy, hard, soft, thresholded
from fuzzyseg.losses.supervised import SupervisedLoss, cross_entropy_map, dice_loss, ohem_keep

PIXEL_LOSSES: dict[str, PixelFunction] = {
    "hard": hard, "soft": soft, "fuzzy": fuzzy, "negative": negative, "partial": partial, "thresholded": thresholded
}  # fmt: skip
"""Pseudo-label losses by name."""

SET_LOSSES = ("fuzzy", "negative", "partial")
"""Losses over the fuzzy positive set. A method supports either all of them or none."""

PIXEL_OPTIONS: dict[str, tuple[str, ...]] = {
    "soft": (),
    "thresholded": ("confidence",),
    **{name: tuple(SetOptions.__annotations__) for name in ("hard", *SET_LOSSES)},
}
"""Options of each loss besides the threshold; `hard` uses them only for `balance`."""

__all__ = [
    "CONFIDENCE", "PIXEL_LOSSES", "PIXEL_OPTIONS", "SET_LOSSES", "Adaptive", "Calibrated", "Confidence",
    "ConfidentPixels", "Conformal", "FuzzyPositiveLoss", "PixelFunction", "PixelLoss", "PixelLossModule", "Policy",
    "Schedule", "SupervisedLoss", "adaptive_threshold", "assign_fuzzy_positives", "confidence_map", "cross_entropy_map",
    "dice_loss", "fuzzy_membership", "fuzzy_positive_loss", "fuzzy_positive_weight", "kl_divergence", "masked_mean",
    "ohem_keep", "positive_gradient_score", "squared_error", "under_mask", "weight_curve",
]  # fmt: skip
