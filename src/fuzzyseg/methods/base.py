"""The contract between a method and the rest of the package."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from torch import Tensor, nn

from fuzzyseg.data.views import Batch, Source, Stream, View, Weak

Network = Callable[[], nn.Module]
SupervisedLoss = Callable[[Tensor, Tensor | None], Tensor]
"""Of logits, and the mask of a stream of labelled images, which has one."""
Fuzzy = Literal["native", "variant", "does not apply"]


class MethodConfig(BaseModel):
    """Base class of a method's settings; fields are made by `setting`."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


def setting(default: Any, source: str, description: str, **options: Any) -> Any:
    """A field of `MethodConfig`.

    source: where the default comes from, such as "paper", "authors' code" or "ours"; `fuzzyseg settings` shows it.
    description: the help text. options: those of `pydantic.Field`.
    """
    return Field(default, description=description, json_schema_extra={"source": source}, **options)


def _shares(largest: float) -> AfterValidator:
    def check(value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1] <= largest:
            raise ValueError(f"found {value}, expected two ascending fractions in (0, {largest}]")
        return value

    return AfterValidator(check)


Shares = Annotated[tuple[float, float], _shares(1)]
"""Range of a fraction of an image."""
RectangleArea = Annotated[tuple[float, float], _shares(0.7)]
"""Range of the fraction that `ops.mix.rectangle_masks` covers; larger rectangles rarely fit into the image."""


class Progress(NamedTuple):
    """Position in the training: number of finished steps (from 0) and of all steps."""

    step: int
    total: int


@dataclass(frozen=True)
class Facts:
    """Properties of the data: number of classes, input channels, background class or None, images per source."""

    classes: int
    channels: int = 3
    background: int | None = None
    images: Mapping[str, int] = field(default_factory=dict)


@dataclass
class Step:
    """Result of `forward`: `losses`, weighted scalars that are summed; `metrics`, detached and only logged."""

    losses: dict[str, Tensor]
    metrics: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class Role:
    """A group of parameters with common optimiser settings.

    lr_factor multiplies the run's learning rate; lr replaces it (the schedule still applies). optimiser replaces
    the run's optimiser, betas those of Adam. decay=False: no weight decay.
    """

    params: list[nn.Parameter]
    lr_factor: float = 1.0
    lr: float | None = None
    optimiser: str | None = None
    decay: bool = True
    betas: tuple[float, float] | None = None


def critic(module: nn.Module, lr: float) -> Role:
    """Role of a network that judges predictions: Adam with a separate learning rate, without weight decay."""
    return Role(list(module.parameters()), lr=lr, optimiser="adam", betas=(0.9, 0.99), decay=False)


class Method(nn.Module):
    """Base class of the methods: computes the losses of one training step from a batch.

    Networks are submodules and memory is buffers, so that `state_dict()` is the complete state. `forward` calls no
    `backward()` and changes no parameter; what changes after the optimiser's step changes in `after_step`.
    """

    Config: ClassVar[type[MethodConfig]] = MethodConfig
    learners: ClassVar[int] = 1
    """Number of separately initialised networks, and of files that `--init` takes."""
    paper_loss: ClassVar[tuple[str, dict[str, Any]] | None] = None
    """Name and options of the paper's pixel loss; None if the paper's term is not a pixel loss."""
    refuses: ClassVar[dict[str, str]] = {}
    """Pixel losses that cannot be used -> reason ("does not apply: ...")."""
    paper_only: ClassVar[tuple[str, ...]] = ()
    """Settings of the paper's own term, without effect when a pixel loss replaces it."""
    pixel_only: ClassVar[tuple[str, ...]] = ()
    """Settings of a pixel loss that replaces the paper's term, without effect otherwise."""
    paper: ClassVar[str] = ""
    """Name of the method, first author, venue and year, as shown by `fuzzyseg methods`."""
    fuzzy: ClassVar[Fuzzy] = "native"
    """FPL replaces a pseudo-label term of the paper (native), or a term that has no pseudo labels (our variant)."""
    cost: ClassVar[str] = ""
    """Networks and forwards of one step."""
    keeps: ClassVar[str] = "nothing"
    """State kept between steps, besides trained parameters."""

    shares_forward: bool = False
    """Whether pseudo labels come from a forward that is also trained, so that dropout affects them."""

    stored_teacher: ClassVar[bool] = False
    """Whether pseudo labels come from stored predictions (`data.scores`) instead of a network of the method."""

    streams: dict[str, Stream]
    student: nn.Module
    pixel_loss: Any
    """`fuzzyseg.losses.PixelLossModule`; None if the paper's term is no pixel loss and none replaces it."""
    confident: Any
    """`fuzzyseg.losses.ConfidentPixels` in methods with a confidence threshold, else None. A reliability gate is set
    from outside, between two steps."""

    def __init__(
        self,
        network: Network,
        supervised_loss: SupervisedLoss,
        pixel_loss: nn.Module | None,
        config: MethodConfig,
        facts: Facts,
    ) -> None:
        """Subclasses take `(network, *rest)`, pass both on and build their networks and streams.

        network: factory, called once for each network that the method needs.
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
        """Update an EMA teacher or memory after the optimiser's step; progress is that of `forward`."""

    def notes(self, size: tuple[int, int]) -> list[str]:
        """Notes to show before a training with crops of this size (H,W), if any."""
        return [] if self.confident is None else list(self.confident.notes(self.pixel_loss))

    def predictor(self) -> nn.Module:
        """The network that is evaluated, exported and used to predict."""
        return self.student

    def pair(self) -> tuple[nn.Module, nn.Module]:
        """Student and teacher for analysis; the same network twice where it teaches itself."""
        student, teacher = getattr(self, "student", None), getattr(self, "teacher", None)
        student = self.predictor() if student is None else student
        return student, student if teacher is None else teacher

    def networks(self) -> Iterable[nn.Module]:
        """The networks that the default roles cover: every direct child with an encoder."""
        return [child for child in self.children() if hasattr(child, "encoder")]

    def roles(self) -> dict[str, Role]:
        """Trained parameters by role. Default: `backbone` (the encoders) and `head` (everything else)."""
        return self.roles_beside({})

    def roles_beside(self, apart: Mapping[str, Role]) -> dict[str, Role]:
        """The default roles of the parameters that are in none of the roles `apart`, and these."""
        backbone: list[nn.Parameter] = []
        for network in self.networks():
            backbone += [p for p in network.encoder.parameters() if p.requires_grad]  # type: ignore[union-attr]
        known = {id(p) for p in (*backbone, *(p for role in apart.values() for p in role.params))}
        head = [p for p in self.parameters() if p.requires_grad and id(p) not in known]
        return {"backbone": Role(backbone), "head": Role(head), **apart}

    def unlabelled_map(
        self, distance: Callable[..., Tensor], student: Tensor, teacher: Any, valid: Tensor, progress: Progress
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The pixel loss (B,H,W) and its statistics; without one the paper's `distance`, which is called alike."""
        size = valid.shape[1:]
        if self.pixel_loss is None:
            return distance(student, teacher, size=size, valid=valid), {}
        found = self.pixel_loss(student, teacher, size=size, valid=valid, progress=progress)
        return found.loss, found.stats

    def draw_weights(self, stream: str) -> Tensor | None:
        """Weights (C,N) for drawing the N images of a stream's source; None: no new weights.

        A class is drawn in proportion to the sum of its row, then an image by the row. Until the weights are in force,
        16 steps after the first ones, images are drawn in seeded permutations.
        """
        return None


def mixing_streams(view: View, source: Source = "unlabelled") -> dict[str, Stream]:
    """Labelled images in the weak view; images of a source in another one, and the partners they are mixed with."""
    pair = {"unlabelled": Stream(view, source), "partner": Stream(view, source, partner="unlabelled")}
    return {"labelled": Stream(Weak(), "labelled"), **pair}


def linear_ramp(step: int, steps: int) -> float:
    """Grows evenly from 1 / steps at step 0 to 1 at `steps` - 1 and stays there; 1 throughout if steps is 0."""
    return min(1.0, (step + 1) / steps) if steps > 0 else 1.0


def sigmoid_ramp(step: int, steps: int) -> float:
    """exp(-5 (1 - t)^2), t = step / steps up to 1: from exp(-5) = 0.0067 at step 0 to 1; 1 throughout if steps is 0.

    S. Laine, T. Aila, "Temporal ensembling for semi-supervised learning", ICLR 2017.
    """
    return math.exp(-5 * (1 - min(1.0, step / steps)) ** 2) if steps > 0 else 1.0
