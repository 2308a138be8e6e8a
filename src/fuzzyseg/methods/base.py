"""Base classes of the methods: their interface to the rest of the package."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from torch import Tensor, nn

from fuzzyseg.data.views import Batch, Source, Stream, View, Weak

Network = Callable[[], nn.Module]
SupervisedLoss = Callable[[Tensor, Tensor | None], Tensor]
"""Called with the logits and mask of a labelled batch; labelled batches always have a mask."""
Fuzzy = Literal["native", "variant", "does not apply"]


class MethodConfig(BaseModel):
    """Base class of a method's settings; fields are created with `setting`."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


def setting(default: Any, source: str, description: str, **options: Any) -> Any:
    """Create a field of `MethodConfig`.

    source: where the default comes from, such as "paper", "authors' code" or "ours"; shown by `fuzzyseg settings`.
    description: the help text. options: passed to `pydantic.Field`.
    """
    return Field(default, description=description, json_schema_extra={"source": source}, **options)


def _shares(largest: float) -> AfterValidator:
    def check(value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1] <= largest:
            raise ValueError(f"found {value}, expected two ascending fractions in (0, {largest}]")
        return value

    return AfterValidator(check)


Shares = Annotated[tuple[float, float], _shares(1)]
"""Lower and upper bound on a fraction in (0, 1]."""
RectangleArea = Annotated[tuple[float, float], _shares(0.7)]
"""Lower and upper bound on the fraction of an image that `ops.mix.rectangle_masks` covers; above 0.7, few would fit."""


class Progress(NamedTuple):
    """Training progress: the number of finished steps (from 0) and the total number of steps."""

    step: int
    total: int


@dataclass(frozen=True)
class Facts:
    """Properties of the data: number of classes and channels, background class (if any), and images per source."""

    classes: int
    channels: int = 3
    background: int | None = None
    images: Mapping[str, int] = field(default_factory=dict)


@dataclass
class Step:
    """Result of `forward`: `losses` are weighted scalars to be summed; `metrics` are detached and only logged."""

    losses: dict[str, Tensor]
    metrics: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class Role:
    """A group of parameters that share optimiser settings.

    lr_factor multiplies the run's learning rate; lr replaces it (the schedule still applies). optimiser replaces the
    run's optimiser; betas replaces Adam's default. decay=False disables weight decay.
    """

    params: list[nn.Parameter]
    lr_factor: float = 1.0
    lr: float | None = None
    optimiser: str | None = None
    decay: bool = True
    betas: tuple[float, float] | None = None


def critic(module: nn.Module, lr: float) -> Role:
    """Create the role for a discriminator-like network: Adam with its own learning rate and no weight decay."""
    return Role(list(module.parameters()), lr=lr, optimiser="adam", betas=(0.9, 0.99), decay=False)


class Method(nn.Module):
    """Base class of the methods, which compute the losses of one training step from a batch.

    Networks must be submodules and all other state must be buffers, so that `state_dict()` is complete. `forward` must
    not call `backward()` or change parameters; updates that follow the optimiser step belong in `after_step`.
    """

    Config: ClassVar[type[MethodConfig]] = MethodConfig
    learners: ClassVar[int] = 1
    """Number of separately initialised networks, which is also the number of files that `--init` accepts."""
    paper_loss: ClassVar[tuple[str, dict[str, Any]] | None] = None
    """Name and options of the paper's unsupervised loss; None if it is not one of the pixel losses."""
    refuses: ClassVar[dict[str, str]] = {}
    """Maps each pixel loss that the method cannot use to the reason ("does not apply: ...")."""
    paper_only: ClassVar[tuple[str, ...]] = ()
    """Settings of the paper's unsupervised loss; they have no effect when a pixel loss replaces it."""
    pixel_only: ClassVar[tuple[str, ...]] = ()
    """Settings that only have an effect when a pixel loss replaces the paper's unsupervised loss."""
    paper: ClassVar[str] = ""
    """Name of the method, first author, venue and year, as shown by `fuzzyseg methods`."""
    fuzzy: ClassVar[Fuzzy] = "native"
    """native: FPL replaces the paper's pseudo-label loss. variant: FPL replaces another loss, which is our addition."""
    cost: ClassVar[str] = ""
    """Number of networks, and of forward passes per step."""
    keeps: ClassVar[str] = "nothing"
    """State kept between steps in addition to the trained parameters."""
    unsharded: ClassVar[str] = ""
    """Why the weights cannot be sharded (`train.sharding=fsdp`); empty if they can."""

    shares_forward: bool = False
    """Whether pseudo labels come from a forward pass that is also used for training, so that dropout affects them."""

    stored_teacher: ClassVar[bool] = False
    """Whether pseudo labels come from stored predictions (`data.scores`) instead of a network of the method."""

    streams: dict[str, Stream]
    student: nn.Module
    pixel_loss: Any
    """A `fuzzyseg.losses.PixelLossModule`; None if the paper's loss is not a pixel loss and none replaces it."""
    confident: Any
    """A `fuzzyseg.losses.ConfidentPixels` in methods with a confidence threshold, otherwise None. With
    `method.confidence=gate`, the caller updates its buffer `reliable` between steps."""

    def __init__(
        self,
        network: Network,
        supervised_loss: SupervisedLoss,
        pixel_loss: nn.Module | None,
        config: MethodConfig,
        facts: Facts,
    ) -> None:
        """Subclasses accept `(network, *rest)`, pass both to the base class, and build their networks and streams.

        network: factory that is called once for each network of the method.
        """
        super().__init__()
        self.supervised_loss = supervised_loss
        self.pixel_loss = pixel_loss
        self.config = config
        self.facts = facts
        self.confident = None

    def forward(self, batch: Mapping[str, Batch], progress: Progress) -> Step:
        """Compute the losses of one step. batch: one `Batch` per stream."""
        raise NotImplementedError

    def after_step(self, progress: Progress) -> None:
        """Update an EMA teacher or memory after the optimiser's step. progress: the same as in `forward`."""

    def notes(self, size: tuple[int, int]) -> list[str]:
        """Return messages to show the user before training on crops of this size (H,W)."""
        return [] if self.confident is None else list(self.confident.notes(self.pixel_loss))

    def predictor(self) -> nn.Module:
        """Return the network used for evaluation, export and prediction."""
        return self.student

    def pair(self) -> tuple[nn.Module, nn.Module]:
        """Return the student and the teacher for analysis; both are the same network if it is its own teacher."""
        student, teacher = getattr(self, "student", None), getattr(self, "teacher", None)
        student = self.predictor() if student is None else student
        return student, student if teacher is None else teacher

    def networks(self) -> Iterable[nn.Module]:
        """Return the networks whose encoders make up the role `backbone`: all direct children with an encoder."""
        return [child for child in self.children() if hasattr(child, "encoder")]

    def roles(self) -> dict[str, Role]:
        """Return the trained parameters by role. Default: `backbone` (the encoders) and `head` (everything else)."""
        return self.roles_beside({})

    def roles_beside(self, extra: Mapping[str, Role]) -> dict[str, Role]:
        """Return the default roles for all parameters that are not in `extra`, followed by the roles in `extra`."""
        backbone: list[nn.Parameter] = []
        for network in self.networks():
            backbone += [p for p in network.encoder.parameters() if p.requires_grad]  # type: ignore[union-attr]
        known = {id(p) for p in (*backbone, *(p for role in extra.values() for p in role.params))}
        head = [p for p in self.parameters() if p.requires_grad and id(p) not in known]
        return {"backbone": Role(backbone), "head": Role(head), **extra}

    def unlabelled_map(
        self, distance: Callable[..., Tensor], student: Tensor, teacher: Any, valid: Tensor, progress: Progress
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the pixel loss (B,H,W) and its statistics or, if there is none, the paper's `distance` and {}."""
        size = valid.shape[1:]
        if self.pixel_loss is None:
            return distance(student, teacher, size=size, valid=valid), {}
        result = self.pixel_loss(student, teacher, size=size, valid=valid, progress=progress)
        return result.loss, result.stats

    def draw_weights(self, stream: str) -> Tensor | None:
        """Return weights (C,N) for sampling the N images of a stream's source, or None to leave the weights unchanged.

        A class is sampled in proportion to the sum of its row, then an image in proportion to the row's entries. The
        first weights take effect after 16 steps; until then, images come from seeded permutations.
        """
        return None


def mixing_streams(view: View, source: Source = "unlabelled") -> dict[str, Stream]:
    """Return the streams of labelled images (weak view), of images from `source`, and of their mixing partners."""
    pair = {"unlabelled": Stream(view, source), "partner": Stream(view, source, partner="unlabelled")}
    return {"labelled": Stream(Weak(), "labelled"), **pair}


def linear_ramp(step: int, steps: int) -> float:
    """Return min(1, (step + 1) / steps), which rises from 1 / steps at step 0 to 1; always 1 if steps is 0."""
    return min(1.0, (step + 1) / steps) if steps > 0 else 1.0


def sigmoid_ramp(step: int, steps: int) -> float:
    """Return exp(-5 (1 - t)^2) with t = min(1, step / steps): 0.0067 at step 0, rising to 1; always 1 if steps is 0.

    S. Laine, T. Aila, "Temporal ensembling for semi-supervised learning", ICLR 2017.
    """
    return math.exp(-5 * (1 - min(1.0, step / steps)) ** 2) if steps > 0 else 1.0
