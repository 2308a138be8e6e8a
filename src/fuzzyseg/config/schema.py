"""Configuration of a run, as typed models. The string below a setting is its help text."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat

from fuzzyseg.config.base import PAPER, OpenSection, OptionalSize, Section, SizeSetting, Texts
from fuzzyseg.config.data_schema import AugmentConfig, DataConfig
from fuzzyseg.config.loss_schema import LossConfig, SupervisedConfig


class NetworkConfig(OpenSection):
    """The network. Other keys are options of the architecture (`network.decoder_aspp_separable=false`)."""

    arch: str = "DeepLabV3Plus"
    """Architecture of segmentation_models_pytorch: DPT, DeepLabV3, DeepLabV3Plus, FPN, Linknet, MAnet, PAN, PSPNet,
    Segformer, UPerNet, Unet or UnetPlusPlus."""
    encoder: str = "resnet50"
    """Encoder of segmentation_models_pytorch (resnet18), or tu- followed by the name of a timm model."""
    weights: str = "imagenet"
    """Encoder weights: imagenet (downloaded once), none (random), or a file."""
    channels: int = Field(3, ge=1)
    """Input channels (bands) of the network."""
    checkpointing: bool = False
    """Recompute the encoder's activations in the backward pass: less memory, slower steps, equal results. For timm
    encoders without batch norm, such as ViTs."""
    output_stride: Literal[8, 16] | None = None
    """Ratio of the image size to the size of the encoder's last features; None: the architecture's default. An
    unsupported value raises an error."""


class MethodChoice(OpenSection):
    """The method. Other keys are settings of the method (`method.cutmix=false`); see `fuzzyseg methods NAME`."""

    name: str = "cps"
    """Name of the method; `fuzzyseg methods` lists them."""


class OptimConfig(Section):
    """Optimiser and learning-rate schedule."""

    name: Literal["sgd", "adamw"] = "sgd"
    """Optimiser of all parameters, except those for which the method requires another."""
    lr: float = Field(0.0025, gt=0)
    """Initial learning rate; for all parameters but the encoder's, it is multiplied by optim.head_lr_factor."""
    momentum: float = Field(0.9, ge=0, lt=1, json_schema_extra=PAPER)
    """Momentum of sgd."""
    weight_decay: float = Field(5e-4, ge=0)
    """Weight decay; for norm parameters and biases see optim.decay_norm."""
    decay_norm: bool = False
    """Also apply weight decay to norm parameters and biases."""
    head_lr_factor: float = Field(1.0, gt=0)
    """Factor of the learning rate for all parameters but the encoder's."""
    schedule: Literal["poly", "constant", "cosine"] = Field("poly", json_schema_extra=PAPER)
    """Learning-rate schedule: polynomial decay, constant, or cosine."""
    power: float = Field(0.9, gt=0, json_schema_extra=PAPER)
    """Power of the schedule poly; 1: linear."""
    warmup: int = Field(0, ge=0)
    """Steps of linear warm-up of the learning rate."""
    clip: float | None = Field(None, gt=0)
    """Maximum gradient norm; None: no clipping."""


class TrainConfig(Section):
    """The training loop."""

    steps: int = Field(2000, ge=1)
    """Total number of optimiser steps, over which the schedules extend."""
    stop_at: int | None = Field(None, ge=1)
    """Save and stop after this step, to resume later; the schedules still extend over train.steps."""
    batch: int = Field(8, ge=1)
    """Images per step and stream, over all processes and micro-batches."""
    accumulate: int = Field(1, ge=1)
    """Micro-batches per step (gradient accumulation); more of them need less memory."""
    crop: SizeSetting = (512, 512)
    """HxW of the training crops."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Full precision, or mixed precision with bf16 or fp16."""
    channels_last: bool = True
    """Channels-last memory format, which is faster on GPUs; results agree within rounding."""
    compile: bool = False
    """Compile the method with torch.compile: slow start, faster steps."""
    ema: float | None = Field(None, gt=0, lt=1)
    """Decay of an exponential moving average (EMA) of the weights, which is evaluated and saved in their place. After n
    steps, the decay is min(this, (1 + n) / (10 + n)). None: no average."""
    freeze_batch_norm: bool = False
    """Do not update batch-norm statistics; use it for batches of one or two images."""
    device: str = "auto"
    """Device: cpu, cuda, cuda:N, mps, or auto: cuda or mps if available, else cpu."""
    threads: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """CPU threads; auto: on a CPU the fastest number, measured before the first step unless OMP_NUM_THREADS is set, and
    kept when the run is resumed. Results with different numbers agree within rounding."""
    sync_batch_norm: bool = False
    """Compute batch-norm statistics over all processes (GPUs only)."""
    sharding: Literal["none", "fsdp"] = "none"
    """With several processes, copy all weights to each (none), or store a part of each weight, gradient and optimiser
    state per process (fsdp: less memory, more traffic; for large ViT encoders)."""
    workers: int = Field(2, ge=0)
    """Data workers (processes that read images); 0: read in the training process."""
    eval_every: int | None = Field(None, ge=0)
    """Steps between evaluations; 0: only at the end; None: a tenth of the run, or more if ten
    evaluations took over a tenth of its time."""
    evaluate: bool = True
    """Evaluate on the validation images; false: no score and no best checkpoint."""
    save_every: int | None = Field(None, ge=1)
    """Steps between checkpoints; None: a tenth of the run."""
    keep_checkpoints: int = Field(2, ge=1)
    """Number of checkpoints to keep: last.pt and earlier ones, which are used if it is damaged."""
    log_every: int = Field(10, ge=1)
    """Steps between lines of metrics.jsonl."""
    tensorboard: bool | Literal["auto"] = "auto"
    """Also write files for TensorBoard; auto: if the package tensorboard is installed."""
    k_maps: int = Field(0, ge=0)
    """Validation images for which a map of K is saved at each evaluation, for `fuzzyseg analyse`."""


class TrackConfig(Section):
    """Experiment tracker that receives the values in `metrics.jsonl` during training."""

    to: Literal["trackio", "wandb"] | None = None
    """Tracker package, which must be installed; None: no tracker."""
    project: str = Field("fuzzyseg", min_length=1)
    """Project in which the run appears, under the name of its folder (trackio: with a hash of its path)."""


class EvaluateConfig(Section):
    """Prediction on validation and test images."""

    mode: Literal["whole", "sliding"] = "whole"
    """Predict the whole image at once (whole), or average the predictions of overlapping windows (sliding)."""
    window: OptionalSize = None
    """HxW of the sliding window; None: the size of the training crops."""
    scales: list[PositiveFloat] = Field([1.0], min_length=1)
    """Scales of the image whose predictions are averaged."""
    flip: bool = False
    """Also predict the horizontally flipped image, and average both predictions."""
    batch: int = Field(1, ge=1)
    """Images per forward pass, if their sizes are equal."""
    diagnose: Literal["off", "last", "every"] = "last"
    """Evaluations during training after which FPL's statistics (K, coverage) are measured in a second pass: none (off),
    the last one (every one if train.k_maps is set), or every one."""
    gallery: int = Field(12, ge=0)
    """Validation images whose pictures the last evaluation stores for `fuzzyseg report`, with the confusion matrix and
    calibration; 0: none of these."""


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
    track: TrackConfig = Field(default_factory=TrackConfig)
    seed: int = Field(0, ge=0)
    """Seed of all random numbers, such as those for image order, crops, colour jitter and initial weights."""
    init: Texts = None
    """Initial weights: a file or a run for each network that the method trains."""
    out: str | None = None
    """Run folder, where all results are written."""
