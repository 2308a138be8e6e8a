"""Configuration of a run: typed models whose descriptions are the help texts.

`json_schema_extra={"source": ...}` declares the source of a default: "paper", "authors' code", "ours".
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from fuzzyseg.config.base import Section, Size, parse_size
from fuzzyseg.config.data_schema import AugmentConfig, DataConfig
from fuzzyseg.config.loss_schema import LossConfig, SupervisedConfig


class NetworkConfig(BaseModel):
    """The network; other names are options of the architecture (`network.decoder_aspp_separable=false`)."""

    model_config = ConfigDict(extra="allow", validate_assignment=True, validate_default=True)

    arch: str = Field(
        "DeepLabV3Plus",
        description="Architecture of segmentation_models_pytorch: DPT, DeepLabV3, DeepLabV3Plus, FPN, Linknet, MAnet, "
        "PAN, PSPNet, Segformer, UPerNet, Unet or UnetPlusPlus.",
    )
    encoder: str = Field(
        "resnet50", description="Encoder of segmentation_models_pytorch (resnet18), or tu- followed by a name of timm."
    )
    weights: str = Field(
        "imagenet", description="Encoder weights: imagenet (downloaded once), none (random), or a file."
    )
    channels: int = Field(3, ge=1, description="Input channels (bands) of the network.")
    output_stride: Literal[8, 16] | None = Field(
        None,
        description="Ratio of the image's size to that of the encoder's last features; None: the architecture's. An "
        "error if the encoder does not support it.",
    )

    @property
    def options(self) -> dict[str, Any]:
        """Options of the architecture."""
        return dict(self.model_extra or {})


class MethodChoice(BaseModel):
    """The method; other names are its own settings (`method.cutmix=false`): see `fuzzyseg methods NAME`."""

    model_config = ConfigDict(extra="allow", validate_assignment=True)

    name: str = Field("cps", description="Name of the method; `fuzzyseg methods` lists them.")

    @property
    def options(self) -> dict[str, Any]:
        """Settings of the method."""
        return dict(self.model_extra or {})


class OptimConfig(Section):
    """Optimiser and schedule."""

    name: Literal["sgd", "adamw"] = Field(
        "sgd", description="Optimiser of all parameters for which the method requires no other."
    )
    lr: float = Field(
        0.0025,
        gt=0,
        description="Initial learning rate; multiplied by optim.head_lr_factor for all but the encoder.",
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of sgd.", json_schema_extra={"source": "paper"})
    weight_decay: float = Field(
        5e-4, ge=0, description="Weight decay; for norm parameters and biases see optim.decay_norm."
    )
    decay_norm: bool = Field(False, description="Apply weight decay to norm parameters and biases, too.")
    head_lr_factor: float = Field(1.0, gt=0, description="Factor of the learning rate of all but the encoder.")
    schedule: Literal["poly", "constant", "cosine"] = Field(
        "poly",
        description="Learning-rate schedule: polynomial decay, constant, or cosine.",
        json_schema_extra={"source": "paper"},
    )
    power: float = Field(
        0.9, gt=0, description="Power of the schedule poly; 1: linear.", json_schema_extra={"source": "paper"}
    )
    warmup: int = Field(0, ge=0, description="Steps of linear warm-up of the learning rate.")
    clip: float | None = Field(None, gt=0, description="Largest gradient norm; None: no clipping.")


class TrainConfig(Section):
    """The training loop."""

    steps: int = Field(2000, ge=1, description="Total optimiser steps, which the schedules are based on.")
    stop_at: int | None = Field(
        None, ge=1, description="Save and stop after this step, to be resumed; the schedules are those of train.steps."
    )
    batch: int = Field(8, ge=1, description="Images per step and stream, over all processes and micro-batches.")
    accumulate: int = Field(1, ge=1, description="Micro-batches per step (gradient accumulation): less memory.")
    crop: Size = Field((512, 512), description="HxW of the training crops.")
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32", description="Full precision, or mixed precision with bf16 or fp16."
    )
    channels_last: bool = Field(
        True, description="Channels-last memory format, which is faster on GPUs; results agree within rounding."
    )
    compile: bool = Field(False, description="Compile the method with torch.compile: slow start, faster steps.")
    ema: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Decay of an exponential moving average of the weights, which is evaluated and saved instead: "
        "min(this, (1 + n) / (10 + n)) after n steps; None: no average.",
    )
    freeze_batch_norm: bool = Field(
        False, description="Do not update batch-norm statistics: for batches of one or two images."
    )
    device: str = Field(
        "auto", description="Device: cpu, cuda, cuda:N, mps, or auto: cuda or mps if available, else cpu."
    )
    workers: int = Field(
        2, ge=0, description="Data workers (processes that read images); 0: read in the training process."
    )
    eval_every: int | None = Field(
        None, ge=0, description="Steps between evaluations; 0: only at the end; None: a tenth of the run."
    )
    evaluate: bool = Field(
        True,
        description="Evaluate on the validation images; false: no score and no best checkpoint.",
    )
    save_every: int | None = Field(None, ge=1, description="Steps between checkpoints; None: a tenth of the run.")
    keep_checkpoints: int = Field(
        2, ge=1, description="Checkpoints kept: last.pt, and those before it, which replace it if it is damaged."
    )
    log_every: int = Field(10, ge=1, description="Steps between lines of metrics.jsonl.")
    tensorboard: bool | Literal["auto"] = Field(
        "auto", description="Also write files for TensorBoard; auto: if the package tensorboard is installed."
    )
    k_maps: int = Field(
        0,
        ge=0,
        description="Validation images for which a map of K is saved at each evaluation, for `fuzzyseg analyse`.",
    )

    _size = field_validator("crop", mode="before")(parse_size)


class EvaluateConfig(Section):
    """Prediction of validation and test images."""

    mode: Literal["whole", "sliding"] = Field(
        "whole", description="The whole image at once, or averaged overlapping windows (sliding)."
    )
    window: Size | None = Field(None, description="HxW of the sliding window; None: that of the training crops.")
    scales: list[float] = Field([1.0], description="Scales of the image whose predictions are averaged.")
    flip: bool = Field(False, description="Average with the prediction of the horizontally flipped image.")
    batch: int = Field(1, ge=1, description="Images per forward pass, if their sizes are equal.")
    diagnose: Literal["off", "last", "every"] = Field(
        "last",
        description="Evaluations during training after which FPL's statistics (K, coverage) are measured in a second "
        "pass: none (off), the last one, or every one, as train.k_maps asks for too.",
    )

    _size = field_validator("window", mode="before")(parse_size)


class Config(Section):
    """Configuration of a run."""

    data: DataConfig = Field(default_factory=DataConfig)
    augment: AugmentConfig = Field(default_factory=AugmentConfig)
    network: NetworkConfig = Field(default_factory=NetworkConfig)
    method: MethodChoice = Field(default_factory=MethodChoice)
    loss: LossConfig = Field(default_factory=LossConfig)
    supervised: SupervisedConfig = Field(default_factory=SupervisedConfig)
    optim: OptimConfig = Field(default_factory=OptimConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)
    evaluate: EvaluateConfig = Field(default_factory=EvaluateConfig)
    seed: int = Field(0, ge=0, description="Seed of all random numbers: order, crops, colours, initial weights.")
    init: list[str] | None = Field(
        None, description="Initial weights: a file or a run for each network that the method trains."
    )
    out: str | None = Field(None, description="Run folder, where all results are written.")

    @field_validator("init", mode="before")
    @classmethod
    def _files(cls, value: Any) -> Any:
        return [part for part in value.split(",") if part] if isinstance(value, str) else value
