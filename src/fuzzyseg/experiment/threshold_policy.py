"""The threshold T of a run: a number, the rule of the FPL paper, a policy, or calibration on held-back images."""

from math import sqrt
from typing import Any, Literal

from torch import Tensor

from fuzzyseg.config import ConfigError, LossConfig
from fuzzyseg.losses import Adaptive, Calibrated, Conformal, PixelLossModule, Policy, Schedule
from fuzzyseg.methods import Facts

CITYSCAPES = 2975
"""Number of training images of Cityscapes, the dataset of Table 5."""

UNKNOWN = 0.9
"""T until the first calibration; the default value in the paper."""


def auto_threshold(labelled: int, images: int, by: Literal["share", "count"]) -> float:
    """Return T from Table 5 of the FPL paper (Cityscapes; more labels, smaller T): 0.95 for 1/32, 0.9 for 1/16 and 1/8.

    The boundary between two rows is the geometric mean of their fractions. Above that of 1/8 and 1/4, T is 0.85, the
    smallest value in the paper. by: `share` compares the fraction of labelled images; `count` compares their number,
    with the same boundaries converted to counts (131 and 525). The two differ unless the dataset has the size of
    Cityscapes.
    """
    amount = labelled / max(images, 1) if by == "share" else labelled / CITYSCAPES
    if amount < sqrt(1 / 32 * 1 / 16):
        return 0.95
    return 0.9 if amount < sqrt(1 / 8 * 1 / 4) else 0.85


def threshold_of(loss: LossConfig, facts: Facts) -> float | Policy:
    """Return T, or the policy that sets it. Raises ConfigError for contradictory settings."""
    if isinstance(loss.threshold, float):
        return loss.threshold
    if loss.threshold == "auto":
        return auto_threshold(facts.images.get("labelled", 0), facts.images.get("all", 0), loss.auto)
    if isinstance(loss.rule, int):
        raise ConfigError(f"loss.threshold: found {loss.threshold!r} with loss.rule={loss.rule}; a fixed K uses no T")
    if loss.threshold == "schedule":
        return Schedule(**loss.schedule.model_dump())
    if loss.policy == "conformal":
        return Conformal(UNKNOWN, facts.classes if loss.conformal.per_class else None)
    if loss.threshold == "calibrated":
        return Calibrated(UNKNOWN)
    policy = Adaptive(**loss.adaptive.model_dump())
    try:
        policy.check()
    except ValueError as error:
        raise ConfigError(f"loss.adaptive.{error}") from None
    return policy


def say_threshold(loss: LossConfig, facts: Facts) -> list[str]:
    """Describe the source of T; empty if T is a plain number."""
    if loss.threshold == "auto":
        labelled, images = facts.images.get("labelled", 0), facts.images.get("all", 0)
        share, count = auto_threshold(labelled, images, "share"), auto_threshold(labelled, images, "count")
        ways = ("share", share, f"{labelled} of {images} training images"), ("count", count, f"{labelled} images")
        (by, value, amount), (other, instead, _) = ways if loss.auto == "share" else ways[::-1]
        return [f"threshold auto: T = {value}, by the {by} of labels ({amount}); by the {other} it would be {instead}"]
    if loss.threshold == "schedule":
        plan = loss.schedule
        return [f"threshold schedule: T from {plan.start} to {plan.end} over {100 * plan.share:g} % of the run"]
    if loss.threshold == "adaptive":
        shown = ", ".join(f"{value:g}" for value in loss.adaptive.candidates)
        return [f"threshold adaptive: T of each pixel from {shown} by a window of {loss.adaptive.window} cells"]
    target = 100 * loss.coverage
    if loss.threshold == "calibrated":
        return [f"threshold calibrated: T {UNKNOWN}, then the smallest that covers {target:g} % of the held-back truth"]
    if loss.policy == "conformal":
        each = " of each class" if loss.conformal.per_class else ""
        return [
            f"threshold conformal: T {UNKNOWN}, then temperature and T{each} for sets that cover {target:g} % of the "
            f"truth, by held-back {loss.conformal.unit}s"
        ]
    return []


def threshold_record(loss: LossConfig, pixel_loss: PixelLossModule) -> dict[str, Any]:
    """Return the policy, its settings and the current value of T, as stored with the run."""
    name = loss.policy
    settings: dict[str, Any] = {}
    if name == "auto":
        settings = {"by": loss.auto}
    elif name == "conformal":
        settings = {**loss.calibrated.model_dump(mode="json"), **loss.conformal.model_dump(mode="json")}
        settings.update(coverage=loss.coverage, temperature=as_written(pixel_loss.temperature))
    elif name != "number":
        settings = getattr(loss, name).model_dump(mode="json")
    if name == "adaptive":
        return {"policy": name, **settings}
    return {"policy": name, **settings, "value": as_written(pixel_loss.threshold)}


def as_written(value: Tensor) -> Any:
    """Convert an fp32 tensor to a number or list, rounded to 6 significant digits: 0.95, not 0.949999988."""
    return [as_written(each) for each in value] if value.dim() else float(f"{float(value):.6g}")
