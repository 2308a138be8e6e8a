"""Every setting of a run: typed models whose descriptions are the help texts."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from fuzzyseg.config.base import Section, Size, parse_size
from fuzzyseg.config.data_schema import AugmentConfig, DataConfig
from fuzzyseg.config.loss_schema import LossConfig, SupervisedConfig


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
    diagnose: Literal["off", "last", "every"] = Field(
        "last",
        description="Evaluations during training after which FPL's statistics (K, coverage) are measured in a second "
        "pass: none (off), the last one, or every one, as train.k_maps asks for too.",
    )

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
