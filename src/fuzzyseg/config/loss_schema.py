"""The settings of the losses: the pseudo-label loss with its threshold, and the loss on labelled images."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from fuzzyseg.config.base import Section


class ScheduleConfig(Section):
    """The threshold T over the run, for `loss.threshold=schedule`."""

    start: float = Field(0.95, gt=0, le=1, description="T at the first step.")
    end: float = Field(0.85, gt=0, le=1, description="T at the end.")
    share: float = Field(1.0, gt=0, le=1, description="Share of the run over which T moves, evenly; then it stays.")


class AdaptiveConfig(Section):
    """The threshold T of each pixel, for `loss.threshold=adaptive` (A-FPL)."""

    candidates: tuple[float, ...] = Field(
        (0.85, 0.9, 0.95), description="The values of T to choose from, in (0, 1], the smallest first."
    )
    window: int = Field(5, ge=3, description="Side of the neighbourhood in cells of the network's stride; odd.")
    epsilon: float = Field(1e-6, gt=0, lt=1, description="Floor of the densities; smaller: boundaries take a larger T.")


class CalibratedConfig(Section):
    """Labelled images that are held back, for `loss.threshold=calibrated` or `conformal:...` and for a reliability gate
    (`method.confidence=gate`)."""

    coverage: float = Field(
        0.95,
        gt=0,
        le=1,
        description="For calibrated: share of the truth of these images that the fuzzy sets shall hold.",
    )
    hold_back: float = Field(0.2, gt=0, lt=1, description="Share of the labelled images, one at least; not trained on.")
    every: int | None = Field(
        None, ge=0, description="Steps between calibrations; 0: only at the start, with init; None: a tenth of the run."
    )
    low: float = Field(0.5, gt=0, le=1, description="Smallest T that may be chosen.")
    high: float = Field(0.99, gt=0, le=1, description="Largest T, where the coverage is out of reach.")


class ConformalConfig(Section):
    """Split-conformal T, for `loss.threshold=conformal:...`; which images, how often and the range of T are those of
    `loss.calibrated`."""

    per_class: bool = Field(False, description="One T for each class, looked up by the teacher's most probable class.")
    unit: Literal["pixel", "image"] = Field(
        "pixel",
        description="What the coverage is counted over: pixels, as if they were independent, or images by their share "
        "of covered pixels, for which it is guaranteed; a coverage of 0.9 takes 9 images, all covered, or more.",
    )


THRESHOLDS = ("auto", "schedule", "adaptive", "calibrated")
"""What `loss.threshold` may be besides a number and `conformal:COVERAGE`."""


class LossConfig(Section):
    """The pseudo-label loss on unlabelled images; docs/losses.md explains each."""

    name: str = Field(
        "paper", description="paper (as the method's authors), hard, soft, fuzzy, negative, partial or thresholded."
    )
    threshold: (
        Annotated[float, Field(gt=0, le=1)]
        | Literal["auto", "schedule", "adaptive", "calibrated"]
        | Annotated[str, Field(title="conformal:COVERAGE")]
    ) = Field(
        0.9,
        description="T of Alg. 1: more classes are positive for a larger T. Or auto (by Table 5 of the paper: the "
        "fewer labels, the larger), schedule, adaptive (A-FPL), calibrated, or conformal:0.9 for sets that hold the "
        "truth with that probability, with the settings of that name.",
    )
    auto: Literal["share", "count"] = Field(
        "share", description="What loss.threshold=auto goes by: the share of labelled images, or their number (count)."
    )
    schedule: ScheduleConfig = Field(default_factory=ScheduleConfig)
    adaptive: AdaptiveConfig = Field(default_factory=AdaptiveConfig)
    calibrated: CalibratedConfig = Field(default_factory=CalibratedConfig)
    conformal: ConformalConfig = Field(default_factory=ConformalConfig)
    weight: Literal["concave", "linear", "convex", "convex1", "none"] = Field(
        "concave",
        description="How the weight of a pixel falls with its best negative: concave (Eq. 11), linear and convex "
        "(Eq. 16), convex1 (of two releases), or none: every weight is 1.",
    )
    a: float = Field(50.0, gt=0, description="A of Eq. 11, of the weight concave: the larger, the more it is bent.")
    k_cap: int | None = Field(
        None,
        ge=1,
        description="Largest K, the number of positive classes of a pixel; None: all classes but one (official: 3).",
    )
    rule: Literal["n-1", "n", "continuous"] | int = Field(
        "n-1",
        description="Where the positive classes end: n-1 (the paper's: before the class with which their sum passes "
        "T), n (after it), continuous (ours: that class counts in part), or a number from 1: a fixed K.",
    )
    variant: Literal["paper", "official"] = Field(
        "paper", description="The loss as the paper has it, or as the authors' published code computes it (official)."
    )
    balance: bool = Field(
        False,
        description="Scale the loss, each step, to the value of hard labels on the same pixels; with the loss hard: by "
        "the factor that fuzzy would have had, a control.",
    )
    confidence: float = Field(
        0.95,
        ge=0,
        le=1,
        description="For the loss thresholded: smallest confidence of the teacher at which a pixel counts.",
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description="Settings of a loss from outside the package (loss.options.gamma=2)."
    )

    @property
    def policy(self) -> str:
        """What T is set by: `number`, or the name of a policy without its coverage."""
        return self.threshold.partition(":")[0] if isinstance(self.threshold, str) else "number"

    @property
    def coverage(self) -> float:
        """Share of the truth that the sets shall hold, for the policies conformal and calibrated."""
        _, _, wanted = str(self.threshold).partition(":")
        return float(wanted) if wanted else self.calibrated.coverage

    @field_validator("threshold", mode="before")
    @classmethod
    def _number_or_name(cls, value: Any) -> Any:
        if value in THRESHOLDS:
            return value
        if isinstance(value, str) and value.partition(":")[0] == "conformal":
            try:
                wanted = float(value.partition(":")[2])
            except ValueError:
                wanted = 0.0
            if not 0 < wanted < 1:
                raise ValueError("expected conformal: and a coverage above 0 and below 1, such as conformal:0.9")
            return value
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = 0.0
        if isinstance(value, bool) or not 0 < number <= 1:
            raise ValueError(f"expected a number in (0, 1], {', '.join(THRESHOLDS)}, or conformal:0.9")
        return number

    @field_validator("rule", mode="before")
    @classmethod
    def _rule_or_number(cls, value: Any) -> Any:
        number = int(value) if isinstance(value, str) and value.isdecimal() else value
        if number not in ("n-1", "n", "continuous") and not (type(number) is int and number >= 1):
            raise ValueError("expected n-1, n, continuous, or a number from 1, a fixed K")
        return number


class SupervisedConfig(Section):
    """The loss on labelled images."""

    name: Literal["ce", "ohem"] = Field("ce", description="Cross entropy on all pixels, or on the hardest only (ohem).")
    ohem_threshold: float = Field(
        0.7, gt=0, le=1, description="OHEM keeps pixels whose true class has at most this probability."
    )
    ohem_min_kept: int = Field(50000, ge=1, description="OHEM keeps at least so many pixels per image, the hardest.")
    class_weights: list[float] | None = Field(
        None, description="One weight per class, in index order; None: all alike."
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="Share of the target that is spread evenly over all classes."
    )
    dice: float = Field(0.0, ge=0, description="Weight of the Dice loss that is added; 0: none.")
