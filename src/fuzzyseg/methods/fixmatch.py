"""FixMatch: Simplifying semi-supervised learning with consistency and confidence, for segmentation.

K. Sohn et al., NeurIPS 2020; the segmentation form is the baseline of L. Yang, L. Qi, L. Feng, W. Zhang, Y. Shi,
"Revisiting Weak-to-Strong Consistency in Semi-Supervised Semantic Segmentation", CVPR 2023 (`teacher: self`), and of
L. Yang, Z. Zhao, H. Zhao, "UniMatch V2", arXiv 2410.10777 (`teacher: ema`). What the network says of the weak view,
where it is confident, is the label of the strong view of the same crop, into which a rectangle of another image is
pasted.

`self`: the network teaches itself. Its labels come from the forward in training mode that it shares with the labelled
images, those of the pasted image from a pass in evaluation mode, which leaves batch norm alone. `ema`: an average of
the weights, always in evaluation mode, labels both, and is what is evaluated.

Where we leave the authors' code, and why. The pasted rectangle is of another image: theirs is of another crop of the
same one, because two samplers share a seed (a slip, the authors say); the second code's turned batch would make a draw
depend on the number of processes. Strong views jitter and blur as ours do (`data/views.py`). Padding is the mean
colour, theirs is black. Batch-norm statistics and dropout are per process. No step is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from fuzzyseg.data.views import Batch, Stream, Weak, WeakStrong
from fuzzyseg.losses import CONFIDENCE, Confidence, ConfidentPixels
from fuzzyseg.methods.base import Facts, Method, MethodConfig, Network, PixelLossModule, Progress, Step, SupervisedLoss
from fuzzyseg.ops.ema import follow, teacher_of, warm_decay
from fuzzyseg.ops.mix import Mixed, paste, rectangle_masks
from fuzzyseg.ops.module_mode import evaluating


class FixMatchConfig(MethodConfig):
    """Settings of FixMatch."""

    teacher: Literal["self", "ema"] = Field(
        "self", description="self: the network itself (Yang et al., CVPR 2023); ema: its average (UniMatch V2's code)."
    )
    threshold: float = Field(
        0.95, description="A pixel is confident from this probability on; the authors' later Cityscapes runs have 0."
    )
    confidence: Confidence = Field(None, description=CONFIDENCE)
    unsupervised_weight: float = Field(1.0, ge=0, description="Weight of the strong view's loss (the authors').")
    decay: float = Field(0.996, ge=0, lt=1, description="Of the average, after a warm-up 1 - 1/(step + 1) (authors').")
    cutmix_probability: float = Field(0.5, ge=0, le=1, description="Share of images that get a rectangle (authors').")
    box_area: tuple[float, float] = Field((0.02, 0.4), description="Range of the rectangle's share (authors').")

    @field_validator("box_area")
    @classmethod
    def _shares(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1] <= 0.7:
            raise ValueError("expected two shares in (0, .7], the smaller one first: larger ones hardly fit anywhere")
        return value


class FixMatch(Method):
    """Labels of the weak view teach the strong view."""

    Config = FixMatchConfig
    paper_loss = ("hard", {})
    paper = "FixMatch, Sohn et al., NeurIPS 2020 (segmentation: Yang et al., CVPR 2023)"
    cost = "one network: 3 forwards, one of them on a double batch, and 1 without gradient (ema: two networks)"
    keeps = "nothing (ema: the average of the weights)"

    def __init__(
        self,
        network: Network,
        supervised_loss: SupervisedLoss,
        pixel_loss: PixelLossModule | None,
        config: FixMatchConfig,
        facts: Facts,
    ) -> None:
        super().__init__(network, supervised_loss, pixel_loss, config, facts)
        self.config: FixMatchConfig = config
        self.student = network()
        self.teacher = teacher_of(self.student) if config.teacher == "ema" else None
        self.shares_forward = self.teacher is None
        self.confident: ConfidentPixels = ConfidentPixels(config.confidence, config.threshold, pixel_loss)
        self.streams = {
            "labelled": Stream(Weak(), "labelled"),
            "unlabelled": Stream(WeakStrong(1), "unlabelled"),
            "partner": Stream(WeakStrong(1), "unlabelled", partner="unlabelled"),
        }

    def notes(self, size: tuple[int, int]) -> list[str]:
        """What the mask of confident pixels makes of the loss."""
        return self.confident.notes(self.pixel_loss)

    def predictor(self) -> nn.Module:
        """The average where there is one, else the network."""
        return self.student if self.teacher is None else self.teacher

    def forward(self, batch: Mapping[str, Batch], progress: Progress) -> Step:
        """Half the supervised loss plus half the loss of the strong view."""
        labelled, a, b = batch["labelled"], batch["unlabelled"], batch["partner"]
        assert labelled.mask is not None
        assert self.pixel_loss is not None
        area, chance = self.config.box_area, self.config.cutmix_probability
        (drawn,) = rectangle_masks(a.seed, a.size, probability=chance, area=area)
        mask = drawn.to(a.image.device)  # (B,H,W), True: partner
        strong = paste(a.strong[0], b.strong[0], mask)
        z_l, z_s, teacher = self._logits(labelled.image, strong, a.image, b.image, mask)
        valid = paste(a.valid, b.valid, mask)
        result = self.pixel_loss(z_s, teacher, size=a.size, valid=valid, progress=progress, maps=True)
        mean, metrics = self.confident(result, valid)
        unsupervised = self.config.unsupervised_weight * mean
        supervised = self.supervised_loss(z_l, labelled.mask)
        return Step({"supervised": supervised / 2, "unsupervised": unsupervised / 2}, metrics)

    def _logits(
        self, labelled: Tensor, strong: Tensor, weak: Tensor, partner: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, Mixed]:
        """Logits (B,C,h,w) of the labelled and the strong images, and the teacher's of the two weak ones, mixed."""
        count = len(labelled)
        if self.teacher is not None:
            with torch.no_grad(), evaluating(self.teacher):
                teacher = Mixed(self.teacher(weak), self.teacher(partner), mask)
            both = self.student(torch.cat([labelled, strong]))
            return both[:count], both[count:], teacher
        with torch.no_grad(), evaluating(self.student):
            pasted = self.student(partner)
        both = self.student(torch.cat([labelled, weak]))  # one batch for batch norm; the strong images are another
        return both[:count], self.student(strong), Mixed(both[count:].detach(), pasted, mask)

    def after_step(self, progress: Progress) -> None:
        """The average follows, weights and buffers; after the first step it is the student."""
        if self.teacher is not None:
            follow(self.teacher, self.student, warm_decay(progress.step, self.config.decay), buffers="average")
