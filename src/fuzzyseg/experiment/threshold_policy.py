"""Where the threshold T of a run comes from: a number, the paper's rule, a policy, or images that are held back."""

from __future__ import annotations

from math import sqrt
from typing import Any, Literal

from torch import Tensor

from fuzzyseg.config import Config, ConfigError
from fuzzyseg.experiment.build import choose_method, uses_threshold
from fuzzyseg.losses import Adaptive, Calibrated, Conformal, PixelLossModule, Policy, Schedule
from fuzzyseg.methods import Facts, Method

CITYSCAPES = 2975
"""Training images of the data set on which Table 5 was measured."""

UNKNOWN = 0.9
"""T until the first calibration: the paper's usual value."""


def auto_threshold(labelled: int, images: int, by: Literal["share", "count"]) -> float:
    """The paper's rule, "the fewer labels, the higher T", by its Table 5 (Cityscapes): .95 at 1/32, .9 at 1/16 and 1/8.

    Between two rows the geometric mean of the shares is the border; from that of 1/8 and 1/4 on T is .85, the smallest
    that the paper uses, which continues the table. by count: the same borders as numbers of labelled images, 131 and
    525, for on a data set of another size the share and the count disagree.
    """
    amount = labelled / max(images, 1) if by == "share" else labelled / CITYSCAPES
    if amount < sqrt(1 / 32 * 1 / 16):
        return 0.95
    return 0.9 if amount < sqrt(1 / 8 * 1 / 4) else 0.85


def threshold_of(config: Config, facts: Facts) -> float | Policy:
    """T, or what sets it. Raises ConfigError for settings that do not fit each other."""
    loss = config.loss
    if isinstance(loss.threshold, float):
        return loss.threshold
    if loss.threshold == "auto":
        return auto_threshold(facts.images.get("labelled", 0), facts.images.get("all", 0), loss.auto)
    if isinstance(loss.rule, int):
        raise ConfigError(
            f"loss.threshold: found {loss.threshold!r} with loss.rule={loss.rule}; a fixed K does not look at T"
        )
    policy: Policy
    if loss.threshold == "schedule":
        policy = Schedule(**loss.schedule.model_dump())
    elif loss.threshold == "adaptive":
        policy = Adaptive(**loss.adaptive.model_dump())
    elif loss.policy == "conformal":
        policy = Conformal(UNKNOWN, facts.classes if loss.conformal.per_class else None)
    else:
        policy = Calibrated(UNKNOWN)
    try:
        policy.check()
    except ValueError as error:
        raise ConfigError(f"loss.{loss.threshold}.{error}") from None
    return policy


def say_threshold(config: Config, facts: Facts) -> list[str]:
    """Sentences on where T comes from; none for a number, and where the loss does not use it."""
    loss = config.loss
    if not uses_threshold(config, choose_method(config)[0]):
        return []
    if loss.threshold == "auto":
        labelled, images = facts.images.get("labelled", 0), facts.images.get("all", 0)
        value = {by: auto_threshold(labelled, images, by) for by in ("share", "count")}  # type: ignore[arg-type]
        amount = {"share": f"{labelled} of {images} training images", "count": f"{labelled} images"}
        other = "count" if loss.auto == "share" else "share"
        return [
            f"threshold auto: T = {value[loss.auto]}, by the {loss.auto} of labels ({amount[loss.auto]}); "
            f"by the {other} it would be {value[other]}"
        ]
    if loss.threshold == "schedule":
        plan = loss.schedule
        return [f"threshold schedule: T from {plan.start} to {plan.end} over {100 * plan.share:g} % of the run"]
    if loss.threshold == "adaptive":
        shown = ", ".join(f"{value:g}" for value in loss.adaptive.candidates)
        return [f"threshold adaptive: T of each pixel from {shown} by a window of {loss.adaptive.window} cells"]
    wanted = 100 * loss.coverage
    if loss.threshold == "calibrated":
        return [f"threshold calibrated: T {UNKNOWN}, then the least that covers {wanted:g} % of the truth held back"]
    if loss.policy == "conformal":
        each = " of each class" if loss.conformal.per_class else ""
        return [
            f"threshold conformal: T {UNKNOWN}, then temperature and T{each} for sets that hold {wanted:g} % of the "
            f"truth, by the {loss.conformal.unit}s held back"
        ]
    return []


def threshold_record(config: Config, method: Method) -> dict[str, Any] | None:
    """What is stored with the run: the policy, its settings, and the value that it gave or stands at.

    None where the loss does not use T.
    """
    loss = config.loss
    if not uses_threshold(config, type(method)) or not isinstance(method.pixel_loss, PixelLossModule):
        return None
    name = loss.policy
    settings: dict[str, Any] = {}
    if name == "auto":
        settings = {"by": loss.auto}
    elif name == "conformal":
        settings = {**loss.calibrated.model_dump(mode="json"), **loss.conformal.model_dump(mode="json")}
        settings.update(coverage=loss.coverage, temperature=as_written(method.pixel_loss.temperature))
    elif name != "number":
        settings = getattr(loss, name).model_dump(mode="json")
    if name == "adaptive":
        return {"policy": name, **settings}
    return {"policy": name, **settings, "value": as_written(method.pixel_loss.threshold)}


def as_written(value: Tensor) -> Any:
    """fp32 as it is written, a number or a list: 0.95, not 0.949999988."""
    return [as_written(each) for each in value] if value.dim() else float(f"{float(value):.6g}")
