"""Settings of the losses: the pseudo-label loss with its threshold, and the supervised loss."""

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, field_validator

from fuzzyseg.config.base import PAPER, Section


class ScheduleConfig(Section):
    """The threshold T as a function of the step, for `loss.threshold=schedule`."""

    start: float = Field(0.95, gt=0, le=1)
    """T at the first step."""
    end: float = Field(0.85, gt=0, le=1)
    """Final T."""
    share: float = Field(1.0, gt=0, le=1)
    """Fraction of the run over which T changes linearly; then it is constant."""


class AdaptiveConfig(Section):
    """Per-pixel threshold T, for `loss.threshold=adaptive` (A-FPL)."""

    candidates: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field((0.85, 0.9, 0.95), json_schema_extra=PAPER)
    """Candidates for T, in ascending order."""
    window: int = Field(5, ge=3)
    """Side length of the neighbourhood, in pixels of the logits; odd."""
    epsilon: float = Field(1e-6, gt=0, lt=1)
    """Lower bound of the densities; smaller values give boundaries a larger T."""


class CalibratedConfig(Section):
    """Held-out labelled images, for `loss.threshold=calibrated` or `conformal:...` and for a reliability gate
    (`method.confidence=gate`)."""

    coverage: float = Field(0.95, gt=0, le=1)
    """For calibrated: target coverage of the true labels of these images by the fuzzy sets."""
    hold_back: float = Field(0.2, gt=0, lt=1)
    """Fraction of the labelled images that is held out of training (at least one image)."""
    every: int | None = Field(None, ge=0)
    """Steps between calibrations; 0: only at the start, with init; None: a tenth of the run."""
    low: float = Field(0.5, gt=0, le=1)
    """Smallest T."""
    high: float = Field(0.99, gt=0, le=1)
    """Largest T, used if the coverage cannot be reached."""


class ConformalConfig(Section):
    """Split-conformal T, for `loss.threshold=conformal:...`. The held-out images, the steps between calibrations and
    the range of T are set in `loss.calibrated`.
    """

    per_class: bool = False
    """One T for each class, selected by the teacher's most probable class."""
    unit: Literal["pixel", "image"] = "pixel"
    """Unit of the coverage. pixel: all pixels, treated as independent. image: images, by their fraction of covered
    pixels; only this coverage is guaranteed. 0.9 needs at least 9 images (with 9, all of their pixels must be
    covered)."""


THRESHOLDS = ("auto", "schedule", "adaptive", "calibrated")
"""Values of `loss.threshold` besides a number and `conformal:COVERAGE`."""


class LossConfig(Section):
    """The pseudo-label loss on unlabelled images; see docs/losses.md."""

    name: str = "paper"
    """paper (the loss of the method's paper), hard, soft, fuzzy, negative, partial or thresholded."""
    threshold: (
        Annotated[float, Field(gt=0, le=1)]
        | Literal["auto", "schedule", "adaptive", "calibrated"]
        | Annotated[str, Field(title="conformal:COVERAGE")]
    ) = Field(0.9, json_schema_extra=PAPER)
    """T of Alg. 1; a larger T makes more classes positive. Or a policy, configured by the settings of the same name:
    auto (Table 5: larger with fewer labels), schedule, adaptive (A-FPL), calibrated, or conformal:0.9 for sets
    that contain the true label with that probability."""
    auto: Literal["share", "count"] = "share"
    """For loss.threshold=auto: use the fraction of labelled images (share), or their number (count)."""
    schedule: ScheduleConfig = Field(default_factory=ScheduleConfig)
    adaptive: AdaptiveConfig = Field(default_factory=AdaptiveConfig)
    calibrated: CalibratedConfig = Field(default_factory=CalibratedConfig)
    conformal: ConformalConfig = Field(default_factory=ConformalConfig)
    weight: Literal["concave", "linear", "convex", "convex1", "none"] = Field("concave", json_schema_extra=PAPER)
    """Weight of a pixel as a function of q, the probability of its most probable negative class: concave (Eq. 11),
    linear and convex (Eq. 16), convex1 (two releases of the code: (m - q) / (m + q) with the positives' mean m), or
    none: every weight is 1."""
    a: float = Field(50.0, gt=0, json_schema_extra=PAPER)
    """A of Eq. 11, for loss.weight=concave; a larger value increases the curvature."""
    k_cap: int | None = Field(None, ge=1, json_schema_extra=PAPER)
    """Largest K, the number of positive classes of a pixel; None: all classes but one (official: 3)."""
    rule: Literal["n-1", "n", "continuous"] | int = Field("n-1", json_schema_extra=PAPER)
    """Last positive class: n-1 (before the class with which the cumulative probability exceeds T), n (that class),
    continuous (ours: that class counts in part), or a fixed K, an integer of at least 1."""
    variant: Literal["paper", "official"] = "paper"
    """The loss of the paper, or that of the authors' published code (official)."""
    balance: bool = Field(False, json_schema_extra={"source": "ours"})
    """Scale the loss at each step to the value that hard labels give on the same pixels. With loss.name=hard,
    use the factor that fuzzy would have (a control experiment)."""
    confidence: float = Field(0.95, ge=0, le=1)
    """For loss.name=thresholded: minimum teacher confidence for a pixel to be used."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Settings of a loss from outside the package (loss.options.gamma=2)."""

    @property
    def policy(self) -> str:
        """Name of the policy for T, without the coverage; `number` for a fixed T."""
        return self.threshold.partition(":")[0] if isinstance(self.threshold, str) else "number"

    @property
    def coverage(self) -> float:
        """Target fraction of pixels whose set contains the true class, for the policies conformal and calibrated."""
        _, _, coverage = str(self.threshold).partition(":")
        return float(coverage) if coverage else self.calibrated.coverage

    @field_validator("threshold", mode="before")
    @classmethod
    def _number_or_name(cls, value: Any) -> Any:
        if value in THRESHOLDS:
            return value
        name, _, share = str(value).partition(":")
        conformal = name == "conformal"
        try:
            number = float(share if conformal else value)
        except (TypeError, ValueError):
            number = 0.0
        if isinstance(value, bool) or not 0 < number <= 1 or (conformal and number == 1):
            words = ", ".join(THRESHOLDS)
            raise ValueError(f"expected a number in (0, 1], {words}, or a coverage below 1 such as conformal:0.9")
        return value if conformal else number

    @field_validator("rule", mode="before")
    @classmethod
    def _rule_or_number(cls, value: Any) -> Any:
        number = int(value) if isinstance(value, str) and value.isdecimal() else value
        if number not in ("n-1", "n", "continuous") and not (type(number) is int and number >= 1):
            raise ValueError("expected n-1, n, continuous, or a fixed K of at least 1")
        return number


class SupervisedConfig(Section):
    """The supervised loss."""

    name: Literal["ce", "ohem"] = "ce"
    """Cross entropy on all pixels (ce), or on the hardest only (ohem)."""
    ohem_threshold: float = Field(0.7, gt=0, le=1)
    """OHEM keeps pixels whose true class has at most this probability."""
    ohem_min_kept: int = Field(50000, ge=1)
    """OHEM keeps at least this many of the hardest pixels per image."""
    class_weights: list[NonNegativeFloat] | Literal["auto"] | None = None
    """One weight per class, in index order; auto: the median class frequency in the labelled masks divided by the
    frequency of the class; None: all equal."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Fraction of the target that is spread uniformly over all classes."""
    dice: float = Field(0.0, ge=0)
    """Weight of an additional Dice loss; 0: none."""
