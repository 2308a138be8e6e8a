"""Every setting of a run: typed models whose descriptions are the help texts."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from fuzzyseg.config.data import AugmentConfig, DataConfig
from fuzzyseg.config.section import Section, Size, parse_size


class NetworkConfig(BaseModel):
    """The network; any further name is an option of the architecture (`network.decoder_aspp_separable=false`)."""

    model_config = ConfigDict(extra="allow", validate_assignment=True, validate_default=True)

    arch: str = Field(
        "DeepLabV3Plus",
        description="Architecture of segmentation_models_pytorch: DPT, DeepLabV3, DeepLabV3Plus, FPN, Linknet, MAnet, "
        "PAN, PSPNet, Segformer, UPerNet, Unet or UnetPlusPlus.",
    )
    encoder: str = Field(
        "resnet50", description="Encoder of segmentation_models_pytorch (resnet18), or tu- and a name of timm."
    )
    weights: str = Field(
        "imagenet", description="Encoder weights: imagenet (downloaded once), none (drawn at random), or a file."
    )
    channels: int = Field(3, ge=1, description="Channels (bands) of the images that the network takes.")
    output_stride: Literal[8, 16] | None = Field(
        None,
        description="How much smaller the encoder's last features are than the image; None: as the architecture has "
        "it. An error where it cannot be chosen.",
    )

    @property
    def options(self) -> dict[str, Any]:
        """The architecture's own options."""
        return dict(self.model_extra or {})


class MethodChoice(BaseModel):
    """The method; any further name is one of its own settings (`method.cutmix=false`): see `fuzzyseg methods NAME`."""

    model_config = ConfigDict(extra="allow", validate_assignment=True)

    name: str = Field("cps", description="Method that is trained; `fuzzyseg methods` lists them.")

    @property
    def options(self) -> dict[str, Any]:
        """The method's own settings."""
        return dict(self.model_extra or {})


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
    """The threshold T from labelled images that are held back, for `loss.threshold=calibrated`."""

    coverage: float = Field(
        0.95, gt=0, le=1, description="Share of the truth of these images that the fuzzy sets shall hold."
    )
    hold_back: float = Field(0.2, gt=0, lt=1, description="Share of the labelled images, one at least; not trained on.")
    every: int | None = Field(
        None, ge=0, description="Steps between calibrations; 0: only at the start, with init; None: a tenth of the run."
    )
    low: float = Field(0.5, gt=0, le=1, description="Smallest T that may be chosen.")
    high: float = Field(0.99, gt=0, le=1, description="Largest T, where the coverage is out of reach.")


THRESHOLDS = ("auto", "schedule", "adaptive", "calibrated")
"""What `loss.threshold` may be besides a number."""


class LossConfig(Section):
    """The pseudo-label loss on unlabelled images; docs/losses.md explains each."""

    name: str = Field(
        "paper", description="paper (as the method's authors), hard, soft, fuzzy, negative, partial or thresholded."
    )
    threshold: Annotated[float, Field(gt=0, le=1)] | Literal["auto", "schedule", "adaptive", "calibrated"] = Field(
        0.9,
        description="T of Alg. 1: more classes are positive for a larger T. Or auto (by Table 5 of the paper: the "
        "fewer labels, the larger), schedule, adaptive (A-FPL) or calibrated, with the settings of that name.",
    )
    auto: Literal["share", "count"] = Field(
        "share", description="What loss.threshold=auto goes by: the share of labelled images, or their number (count)."
    )
    schedule: ScheduleConfig = Field(default_factory=ScheduleConfig)
    adaptive: AdaptiveConfig = Field(default_factory=AdaptiveConfig)
    calibrated: CalibratedConfig = Field(default_factory=CalibratedConfig)
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

    @field_validator("threshold", mode="before")
    @classmethod
    def _number_or_name(cls, value: Any) -> Any:
        if value in THRESHOLDS:
            return value
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = 0.0
        if isinstance(value, bool) or not 0 < number <= 1:
            raise ValueError(f"expected a number in (0, 1], or one of {', '.join(THRESHOLDS)}")
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


class OptimConfig(Section):
    """Optimiser and schedule."""

    name: Literal["sgd", "adamw"] = Field(
        "sgd", description="Optimiser of all parameters for which the method asks for no other."
    )
    lr: float = Field(
        0.0025,
        gt=0,
        description="Learning rate at the start; that of all but the encoder is multiplied by optim.head_lr_factor.",
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of sgd.")
    weight_decay: float = Field(
        5e-4, ge=0, description="Weight decay of the optimiser; norm parameters and biases: see optim.decay_norm."
    )
    decay_norm: bool = Field(False, description="Also decay norm parameters and biases.")
    head_lr_factor: float = Field(1.0, gt=0, description="Multiplies the learning rate of all but the encoder.")
    schedule: Literal["poly", "constant", "cosine"] = Field(
        "poly",
        description="How the learning rate falls to the last step: by a power of what is left (poly), not at all, or "
        "as a cosine.",
    )
    power: float = Field(0.9, gt=0, description="Power of the schedule poly; 1: evenly.")
    warmup: int = Field(0, ge=0, description="Steps over which the learning rate rises evenly from 0 at the start.")
    clip: float | None = Field(None, gt=0, description="Largest gradient norm; None: no clipping.")


class TrainConfig(Section):
    """The training loop."""

    steps: int = Field(2000, ge=1, description="Optimiser steps in all; the schedules go by it.")
    stop_at: int | None = Field(
        None, ge=1, description="Save and end after this step, to be resumed; the schedules stay those of train.steps."
    )
    batch: int = Field(8, ge=1, description="Images per step and stream, all processes and micro-batches together.")
    accumulate: int = Field(
        1, ge=1, description="Micro-batches that a step's batch is divided into, one after the other: less memory."
    )
    crop: Size = Field((512, 512), description="HxW of the training crops.")
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32", description="Arithmetic of the networks: full, or mixed with bf16 or fp16."
    )
    channels_last: bool = Field(
        True, description="Memory order of images that convolutions on GPUs prefer; results agree within rounding."
    )
    compile: bool = Field(False, description="Compile the method with torch.compile: a slow start, faster steps.")
    ema: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Decay of a running average of the weights, which then is evaluated and saved: min(this, (1 + n) / "
        "(10 + n)) after n steps; None: no average.",
    )
    freeze_batch_norm: bool = Field(
        False, description="Keep batch-norm statistics as they were loaded: for batches of one or two images."
    )
    device: str = Field(
        "auto", description="Where to train: cpu, cuda, cuda:N, mps, or auto: cuda or mps if there is one, else cpu."
    )
    workers: int = Field(2, ge=0, description="Processes that read images; 0: the training process itself.")
    eval_every: int | None = Field(
        None, ge=0, description="Steps between evaluations; 0: at the end; None: a tenth of the run."
    )
    evaluate: bool = Field(
        True,
        description="Evaluate on the validation images; false: never, so there is no score and no best checkpoint.",
    )
    save_every: int | None = Field(None, ge=1, description="Steps between checkpoints; None: a tenth of the run.")
    log_every: int = Field(10, ge=1, description="Steps between lines of metrics.jsonl.")
    tensorboard: bool = Field(True, description="Also write files for TensorBoard.")
    k_maps: int = Field(
        0, ge=0, description="Validation images whose K is kept as a map at each evaluation, for `fuzzyseg analyse`."
    )

    _size = field_validator("crop", mode="before")(parse_size)


class EvaluateConfig(Section):
    """How validation and test images are predicted for a score."""

    mode: Literal["whole", "sliding"] = Field(
        "whole", description="The whole image at once, or by overlapping windows that are averaged (sliding)."
    )
    window: Size | None = Field(None, description="HxW of the windows, for sliding; None: that of the training crops.")
    scales: list[float] = Field(
        [1.0], description="Factors of the image's size at which it is predicted; the predictions are averaged."
    )
    flip: bool = Field(False, description="Also average with the prediction of the mirrored image.")
    batch: int = Field(1, ge=1, description="Images per forward pass, where their sizes agree.")

    _size = field_validator("window", mode="before")(parse_size)


class Config(Section):
    """Everything that a run depends on."""

    data: DataConfig = Field(default_factory=DataConfig)
    augment: AugmentConfig = Field(default_factory=AugmentConfig)
    network: NetworkConfig = Field(default_factory=NetworkConfig)
    method: MethodChoice = Field(default_factory=MethodChoice)
    loss: LossConfig = Field(default_factory=LossConfig)
    supervised: SupervisedConfig = Field(default_factory=SupervisedConfig)
    optim: OptimConfig = Field(default_factory=OptimConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)
    evaluate: EvaluateConfig = Field(default_factory=EvaluateConfig)
    seed: int = Field(0, ge=0, description="Seed of everything that is drawn: order, crops, colours, first weights.")
    init: list[str] | None = Field(
        None, description="Weights to start from: a file or a run, as many as the method trains networks."
    )
    out: str | None = Field(None, description="Folder of the run, where all that comes out is written.")

    @field_validator("init", mode="before")
    @classmethod
    def _files(cls, value: Any) -> Any:
        return [part for part in value.split(",") if part] if isinstance(value, str) else value
