"""Every setting of a run: typed models whose descriptions are the help texts."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from fuzzyseg.config.data import AugmentConfig, DataConfig
from fuzzyseg.config.section import Section, Size, parse_size


class NetworkConfig(BaseModel):
    """The network; any further key is an option of the architecture (`network.decoder_aspp_separable=false`)."""

    model_config = ConfigDict(extra="allow", validate_assignment=True, validate_default=True)

    arch: str = Field("DeepLabV3Plus", description="Architecture of segmentation_models_pytorch.")
    encoder: str = Field("resnet50", description="Encoder of segmentation_models_pytorch or timm (tu-...).")
    weights: str = Field("imagenet", description="Encoder weights: imagenet (downloaded), none, or a file.")
    channels: int = Field(3, ge=1, description="Input channels.")
    output_stride: Literal[8, 16] | None = Field(None, description="Encoder stride where the architecture allows it.")

    @property
    def options(self) -> dict[str, Any]:
        """The architecture's own options."""
        return dict(self.model_extra or {})


class MethodChoice(BaseModel):
    """The method; any further key is one of its own settings (`method.cutmix=false`)."""

    model_config = ConfigDict(extra="allow", validate_assignment=True)

    name: str = Field("cps", description="Method that is trained.")

    @property
    def options(self) -> dict[str, Any]:
        """The method's own settings."""
        return dict(self.model_extra or {})


class ScheduleConfig(Section):
    """T over the run, for `loss.threshold=schedule`."""

    start: float = Field(0.95, gt=0, le=1, description="T at the first step.")
    end: float = Field(0.85, gt=0, le=1, description="T at the end.")
    share: float = Field(1.0, gt=0, le=1, description="Share of the run over which T moves, evenly; then it stays.")


class AdaptiveConfig(Section):
    """T for each pixel, for `loss.threshold=adaptive` (A-FPL)."""

    candidates: tuple[float, ...] = Field((0.85, 0.9, 0.95), description="The values of T, the smallest first.")
    window: int = Field(5, ge=3, description="Side of the neighbourhood in cells of the network's stride; odd.")
    epsilon: float = Field(1e-6, gt=0, lt=1, description="Floor of the densities; smaller: boundaries take a larger T.")


class CalibratedConfig(Section):
    """T from labelled images that are held back, for `loss.threshold=calibrated`."""

    coverage: float = Field(0.95, gt=0, le=1, description="How much of the truth the fuzzy sets shall hold there.")
    hold_back: float = Field(0.2, gt=0, lt=1, description="Share of the labelled images, one at least; not trained on.")
    every: int | None = Field(
        None, ge=0, description="Steps between calibrations; 0: only at the start; None: a tenth."
    )
    low: float = Field(0.5, gt=0, le=1, description="Smallest T.")
    high: float = Field(0.99, gt=0, le=1, description="Largest T, where the coverage is out of reach.")


THRESHOLDS = ("auto", "schedule", "adaptive", "calibrated")
"""What `loss.threshold` may be besides a number."""


class LossConfig(Section):
    """The pseudo-label loss."""

    name: str = Field(
        "paper", description="paper (as the method's authors), hard, soft, fuzzy, negative, partial or thresholded."
    )
    threshold: float | Literal["auto", "schedule", "adaptive", "calibrated"] = Field(
        0.9,
        description="T of Alg. 1, in (0, 1]: more classes are positive for a larger T. Or auto (Table 5: the fewer "
        "labels, the larger), schedule, adaptive (A-FPL) or calibrated, with the settings of that name.",
    )
    auto: Literal["share", "count"] = Field("share", description="Whether auto goes by the share or count of labels.")
    schedule: ScheduleConfig = Field(default_factory=ScheduleConfig)
    adaptive: AdaptiveConfig = Field(default_factory=AdaptiveConfig)
    calibrated: CalibratedConfig = Field(default_factory=CalibratedConfig)
    weight: Literal["concave", "linear", "convex", "convex1", "none"] = Field("concave", description="Eq. 11, 16.")
    a: float = Field(50.0, gt=0, description="A of Eq. 11.")
    k_cap: int | None = Field(None, ge=1, description="Largest K; None: C - 1.")
    rule: Literal["n-1", "n", "continuous"] | int = Field(
        "n-1", description="n-1 (the paper's), n, continuous (ours: the class at T counts in part), or a fixed K."
    )
    variant: Literal["paper", "official"] = Field("paper", description="official: as the published code computes it.")
    balance: bool = Field(
        False, description="Scale the loss to the value of the hard one, each step; hard: by fuzzy's factor, a control."
    )
    confidence: float = Field(0.95, ge=0, le=1, description="thresholded: smallest confidence of a pixel that counts.")

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


class SupervisedConfig(Section):
    """The loss on labelled pixels."""

    name: Literal["ce", "ohem"] = Field("ce", description="Cross entropy, or on the hardest pixels only.")
    ohem_threshold: float = Field(0.7, gt=0, le=1, description="OHEM keeps pixels whose true class is below this.")
    ohem_min_kept: int = Field(50000, ge=1, description="OHEM keeps at least so many pixels per image.")
    class_weights: list[float] | None = Field(None, description="One weight per class.")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Share of the target spread over all classes.")
    dice: float = Field(0.0, ge=0, description="Weight of the Dice loss that is added.")


class OptimConfig(Section):
    """Optimiser and schedule."""

    name: Literal["sgd", "adamw"] = Field("sgd", description="Optimiser.")
    lr: float = Field(0.0025, gt=0, description="Learning rate at the start.")
    momentum: float = Field(0.9, ge=0, lt=1, description="SGD's momentum.")
    weight_decay: float = Field(5e-4, ge=0, description="Weight decay.")
    decay_norm: bool = Field(False, description="Also decay batch-norm parameters and biases.")
    head_lr_factor: float = Field(1.0, gt=0, description="Multiplies the learning rate of all but the encoder.")
    schedule: Literal["poly", "constant", "cosine"] = Field("poly", description="How the learning rate falls.")
    power: float = Field(0.9, gt=0, description="Power of the poly schedule.")
    warmup: int = Field(0, ge=0, description="Steps of linear warm-up.")
    clip: float | None = Field(None, gt=0, description="Largest gradient norm; None: no clipping.")


class TrainConfig(Section):
    """The loop."""

    steps: int = Field(2000, ge=1, description="Optimiser steps in all; the schedules follow it.")
    stop_at: int | None = Field(None, ge=1, description="Save and end after this step; schedules do not change.")
    batch: int = Field(8, ge=1, description="Images per step and stream, all processes and micro-batches together.")
    accumulate: int = Field(1, ge=1, description="Micro-batches per step.")
    crop: Size = Field((512, 512), description="HxW of the training crops.")
    precision: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="Arithmetic of the forward pass.")
    channels_last: bool = Field(True, description="Memory order that convolutions prefer.")
    compile: bool = Field(False, description="torch.compile the method.")
    ema: float | None = Field(None, gt=0, lt=1, description="Decay of an average of the weights; None: no average.")
    freeze_batch_norm: bool = Field(False, description="Keep batch-norm statistics as they were loaded.")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:N or mps.")
    workers: int = Field(2, ge=0, description="Processes that read images.")
    eval_every: int | None = Field(None, ge=0, description="Steps between evaluations; 0: at the end; None: a tenth.")
    evaluate: bool = Field(True, description="False: never evaluate.")
    save_every: int | None = Field(None, ge=1, description="Steps between checkpoints; None: a tenth.")
    log_every: int = Field(10, ge=1, description="Steps between logged lines.")
    tensorboard: bool = Field(True, description="Also write TensorBoard files.")
    k_maps: int = Field(
        0, ge=0, description="Validation images whose K is kept as a map at each evaluation, for `fuzzyseg analyse`."
    )

    _size = field_validator("crop", mode="before")(parse_size)


class EvaluateConfig(Section):
    """How whole images are predicted."""

    mode: Literal["whole", "sliding"] = Field("whole", description="Whole image at once, or windows.")
    window: Size | None = Field(None, description="HxW of the windows; None: the crop.")
    scales: list[float] = Field([1.0], description="Scales that are averaged.")
    flip: bool = Field(False, description="Average with the mirrored image.")
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
    seed: int = Field(0, ge=0, description="Seed of everything that is drawn.")
    init: list[str] | None = Field(None, description="Weights to start from, one per learner (file or run).")
    out: str | None = Field(None, description="Run folder.")

    @field_validator("init", mode="before")
    @classmethod
    def _files(cls, value: Any) -> Any:
        return [part for part in value.split(",") if part] if isinstance(value, str) else value
