"""Semi-supervised semantic segmentation needs strong, varied perturbations.

G. French, S. Laine, T. Aila, M. Mackiewicz, G. Finlayson, BMVC 2020. A mean teacher whose perturbation is CutMix: the
student sees a mix of two images, its target is the same mix of the teacher's predictions on the two clean ones. The
squared error is scaled by the share of pixels that the teacher is sure of.

The authors keep batch-norm statistics as they were loaded in both networks; that is `train.freeze_batch_norm=true` of
the run. Otherwise both are in training mode and the teacher's statistics, moved by its own forwards, also follow the
student's. Their strong colours, on in the scripts of today but later than the paper, are the option `colour`. Not
implemented: masks other than boxes, the robust cross entropy and the costs on logits, their ramp (which excludes a
threshold); PixelSSL's variant (weight 20 on the mean over classes, decay with a warm-up, weights alone averaged).

Where we leave the authors' code, and why. The two images of a mix are never one and the same. Padding is left out of
the share of sure pixels, too. The teacher moves parameters and buffers by name, counters are copied. The share of sure
pixels is taken per process and micro-batch, as published; batch-norm statistics and dropout are per process.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from fuzzyseg.data.views import Batch, Stream, View, Weak, WeakStrong
from fuzzyseg.losses import confidence_map, kl_divergence, masked_mean, squared_error, under_mask
from fuzzyseg.losses.reduction import local_mean
from fuzzyseg.methods.base import Facts, Method, MethodConfig, Network, PixelLossModule, Progress, Step, SupervisedLoss
from fuzzyseg.ops.ema import follow, teacher_of
from fuzzyseg.ops.mix import Mixed, box_masks, paste
from fuzzyseg.ops.module_mode import without_dropout

COLOUR = WeakStrong(
    1, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, jitter_probability=0.8, grey_probability=0.2,
    blur_probability=0.0,
)  # fmt: skip
"""The strong colours of the authors' scripts."""
DISTANCES = {"squared": squared_error, "kl": kl_divergence}


class CutMixSegConfig(MethodConfig):
    """Settings of CutMix-Seg."""

    distance: Literal["squared", "kl"] = Field(
        "squared", description="squared: sum over the classes of (p - q)^2, the paper's; kl: their option kld."
    )
    unsupervised_weight: float = Field(1.0, ge=0, description="Weight of the paper's distance (the scripts').")
    pixel_weight: float = Field(
        1.0, ge=0, description="Weight with --loss hard, soft, fuzzy; ours, theirs belongs to a distance in [0, 2]."
    )
    decay: float = Field(0.99, ge=0, lt=1, description="Decay of the teacher, weights and buffers (the scripts').")
    threshold: float = Field(0.97, description="The teacher is sure of a pixel from this probability on (scripts).")
    confidence: Literal["keep", "drop"] = Field(
        "keep", description="keep: scale by the share of sure pixels (scripts), with any --loss; drop: all alike."
    )
    per_pixel: bool = Field(
        False,
        description="Drop each pixel below the threshold in place of that scale (the code's option); a fuzzy loss is "
        "cross entropy then, for every pixel that is left has K = 1 and a weight of at least .99.",
    )
    box_area: float = Field(0.5, gt=0, le=1, description="Share of the image that the box covers (the scripts').")
    colour: bool = Field(False, description="The student sees strong colours (scripts yes, paper no).")
    images: Literal["all", "unlabelled"] = Field(
        "all", description="all: the labelled images are mixed too, as in the authors' code."
    )


class CutMixSeg(Method):
    """A mean teacher on mixed images."""

    Config = CutMixSegConfig
    paper_loss = None
    paper_only = ("distance", "unsupervised_weight")
    pixel_only = ("pixel_weight",)
    paper = "CutMix-Seg, French et al., BMVC 2020"
    fuzzy: ClassVar[Literal["native", "variant", "does not apply"]] = "variant"
    cost = "two networks, one trained; student 2 forwards, teacher 2 without gradient"
    keeps = "teacher: average of the student's weights and buffers"

    def __init__(
        self,
        network: Network,
        supervised_loss: SupervisedLoss,
        pixel_loss: PixelLossModule | None,
        config: CutMixSegConfig,
        facts: Facts,
    ) -> None:
        super().__init__(network, supervised_loss, pixel_loss, config, facts)
        self.config: CutMixSegConfig = config
        self.student = network()
        self.teacher = teacher_of(self.student)
        view: View = COLOUR if config.colour else Weak()
        self.streams = {
            "labelled": Stream(Weak(), "labelled"),
            "unlabelled": Stream(view, config.images),
            "partner": Stream(view, config.images, partner="unlabelled"),
        }

    def notes(self, size: tuple[int, int]) -> list[str]:
        """That a loss over sets is cross entropy under the mask."""
        alone = self.config.per_pixel and self.config.confidence == "keep"
        return under_mask(self.pixel_loss, self.config.threshold) if alone else []

    def predictor(self) -> nn.Module:
        """The teacher, as in the authors' evaluation."""
        return self.teacher

    def forward(self, batch: Mapping[str, Batch], progress: Progress) -> Step:
        """Supervised loss plus the distance from the teacher's mixed prediction."""
        labelled, a, b = batch["labelled"], batch["unlabelled"], batch["partner"]
        assert labelled.mask is not None
        supervised = self.supervised_loss(self.student(labelled.image), labelled.mask)
        area = (self.config.box_area, self.config.box_area)
        mask = box_masks(a.seed, a.size, boxes=1, area=area).to(a.image.device)  # (B,H,W), True: partner
        with torch.no_grad(), without_dropout(self.teacher):
            teacher = Mixed(self.teacher(a.image), self.teacher(b.image), mask)
        valid = paste(a.valid, b.valid, mask)
        seen = (a.strong[0], b.strong[0]) if self.config.colour else (a.image, b.image)
        z = self.student(paste(*seen, mask))  # (B,C,h,w)
        if self.pixel_loss is None:
            weight, metrics = self.config.unsupervised_weight, {}
            loss = DISTANCES[self.config.distance](z, teacher, size=a.size, valid=valid)  # (B,H,W)
        else:
            result = self.pixel_loss(z, teacher, size=a.size, valid=valid, progress=progress)
            weight, loss, metrics = self.config.pixel_weight, result.loss, result.stats
        if self.config.confidence == "keep":
            sure = (confidence_map(teacher, a.size) >= self.config.threshold).float()
            share = local_mean(sure, valid)
            loss = loss * (sure if self.config.per_pixel else share)
            metrics = {**metrics, "sure": share}
        # As published the mean is over all pixels, those of padding counting as 0.
        unsupervised = masked_mean(loss, torch.ones_like(valid))
        return Step({"supervised": supervised, "unsupervised": weight * unsupervised}, metrics)

    def after_step(self, progress: Progress) -> None:
        """The teacher follows with weights and batch-norm statistics, without a warm-up."""
        follow(self.teacher, self.student, self.config.decay, buffers="average")
