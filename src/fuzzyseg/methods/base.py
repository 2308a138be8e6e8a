"""The contract between a method and everything around it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from fuzzyseg.data.views import Batch, Stream

Network = Callable[[], nn.Module]
SupervisedLoss = Callable[[Tensor, Tensor], Tensor]
PixelLossModule = nn.Module


class MethodConfig(BaseModel):
    """A method's own settings; every field has a help text that names its source."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class Progress(NamedTuple):
    """Where the training stands: finished steps (from 0) and the total."""

    step: int
    total: int


@dataclass(frozen=True)
class Facts:
    """What the data told: number of classes, background class or None, input channels, images per source."""

    classes: int
    channels: int = 3
    background: int | None = None
    images: Mapping[str, int] = field(default_factory=dict)


@dataclass
class Step:
    """What `forward` returns: `losses`, final weighted scalars that are summed; `metrics`, detached and logged only."""

    losses: dict[str, Tensor]
    metrics: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class Role:
    """A group of parameters that is optimised alike.

    lr_factor multiplies the run's learning rate, lr replaces it (the schedule moves it all the same), optimiser
    replaces the run's optimiser, betas replaces Adam's, decay False means no weight decay.
    """

    params: list[nn.Parameter]
    lr_factor: float = 1.0
    lr: float | None = None
    optimiser: str | None = None
    decay: bool = True
    betas: tuple[float, float] | None = None


class Method(nn.Module):
    """One paper: what is learnt from a batch.

    Networks are submodules and memory is buffers, so that `state_dict()` is the whole method. `forward` calls no
    `backward()` and changes no parameter; what moves after the optimiser's step moves in `after_step`.
    """

    Config: ClassVar[type[MethodConfig]] = MethodConfig
    learners: ClassVar[int] = 1
    """How many networks the method trains from a start of their own (`--init` takes as many files)."""
    paper_loss: ClassVar[tuple[str, dict[str, Any]] | None] = None
    """Name and options of the pixel loss that the paper uses; None: the paper's term is no pixel loss."""
    refuses: ClassVar[dict[str, str]] = {}
    """Pixel losses that cannot apply, with the reason ("does not apply: ...")."""
    paper_only: ClassVar[tuple[str, ...]] = ()
    """Settings of the paper's own term: of no effect once a pixel loss has its place."""
    pixel_only: ClassVar[tuple[str, ...]] = ()
    """Settings of a pixel loss that takes the place of the paper's term: of no effect without one."""
    paper: ClassVar[str] = ""
    """Name of the method as its authors write it, first author, venue and year: `fuzzyseg methods` shows it."""
    fuzzy: ClassVar[Literal["native", "variant", "does not apply"]] = "native"
    """FPL takes the place of a pseudo-label term of the paper (native), or of a term that has none (our variant)."""
    cost: ClassVar[str] = ""
    """What a step costs, beside that of the supervised baseline: forwards, parameters."""
    keeps: ClassVar[str] = "nothing"
    """What the method remembers from step to step, besides what is trained."""

    shares_forward: bool = False
    """Whether pseudo labels come from a forward that also trains: the network's dropout then is in the labels, too."""

    streams: dict[str, Stream]
    student: nn.Module
    confident: nn.Module | None
    """Which pixels teach, in methods with a confidence threshold (`fuzzyseg.losses.ConfidentPixels`): one that is a
    gate is decided from outside, between two steps, on labels that were held back."""

    def __init__(
        self,
        network: Network,
        supervised_loss: SupervisedLoss,
        pixel_loss: PixelLossModule | None,
        config: MethodConfig,
        facts: Facts,
    ) -> None:
        super().__init__()
        self.supervised_loss = supervised_loss
        self.pixel_loss = pixel_loss
        self.config = config
        self.facts = facts
        self.confident = None

    def forward(self, batch: Mapping[str, Batch], progress: Progress) -> Step:
        """The losses of one step. batch: one `Batch` per stream; progress: finished steps and total."""
        raise NotImplementedError

    def after_step(self, progress: Progress) -> None:
        """Called once after each optimiser step with the value that `forward` got; an EMA teacher moves here."""

    def notes(self, size: tuple[int, int]) -> list[str]:
        """Sentences to be told before a training with crops of this size (H,W), if any."""
        return []

    def predictor(self) -> nn.Module:
        """The network that is evaluated, exported and used to predict."""
        return self.student

    def pair(self) -> tuple[nn.Module, nn.Module]:
        """Student and teacher as an analysis looks at them; the same network twice where it teaches itself."""
        student, teacher = getattr(self, "student", None), getattr(self, "teacher", None)
        student = self.predictor() if student is None else student
        return student, student if teacher is None else teacher

    def networks(self) -> Iterable[nn.Module]:
        """The networks whose parameters the default roles cover: every direct child with an encoder."""
        return [child for child in self.children() if hasattr(child, "encoder")]

    def roles(self) -> dict[str, Role]:
        """Parameters to optimise, by role. Default: `backbone` (the encoders) and `head` (everything else)."""
        backbone: list[nn.Parameter] = []
        for network in self.networks():
            backbone += [p for p in network.encoder.parameters() if p.requires_grad]  # type: ignore[union-attr]
        known = {id(p) for p in backbone}
        head = [p for p in self.parameters() if p.requires_grad and id(p) not in known]
        return {"backbone": Role(backbone), "head": Role(head)}

    def draw_weights(self, stream: str) -> Tensor | None:
        """Weights that steer what `stream` draws: (C,N), N images of its source; None: nothing new is published.

        A class is drawn for in proportion to the sum of its row, then an image by the row. Until weights are in force,
        16 steps after the first were published, images are drawn in seeded permutations.
        """
        return None
