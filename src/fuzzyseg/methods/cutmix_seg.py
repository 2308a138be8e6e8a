"""Semi-supervised semantic segmentation needs strong, varied perturbations.

G. French, S. Laine, T. Aila, M. Mackiewicz, G. Finlayson, BMVC 2020. A mean teacher with CutMix: the student sees a mix
of two images, and its target is the same mix of the teacher's predictions for the clean images. The squared error is
scaled by the fraction of pixels on which the teacher is confident.

The authors freeze batch norm in both networks (`train.freeze_batch_norm=true`). If it is not frozen, both networks are
in training mode, and the teacher's running statistics are updated by its own forward passes and by an EMA of the
student's. `colour` enables the strong colour augmentation of the authors' current scripts, which postdate the paper.
Not implemented: masks other than boxes, the robust cross entropy, losses on logits, their ramp (which rules out a
threshold) and PixelSSL's variant.

Unlike the authors' code, we always mix two different images, exclude padding from the fraction of confident pixels,
match the teacher's parameters and buffers by name, and copy batch counters. The fraction of confident pixels (per
micro-batch, as published), batch-norm statistics and dropout are computed separately in each process.
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import nn

from fuzzyseg.data.views import Batch, Weak, WeakStrong
from fuzzyseg.losses import confidence_map, kl_divergence, masked_mean, squared_error, under_mask
from fuzzyseg.losses.base import local_mean
from fuzzyseg.methods.base import Method, MethodConfig, Network, Progress, Step, mixing_streams, setting
from fuzzyseg.ops.ema import follow, teacher_of
from fuzzyseg.ops.mix import Mixed, box_masks, paste
from fuzzyseg.ops.module_mode import without_dropout

COLOUR = WeakStrong(
    1, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, jitter_probability=0.8, grey_probability=0.2,
    blur_probability=0.0,
)  # fmt: skip
"""The strong colour augmentation in the authors' scripts."""
DISTANCES = {"squared": squared_error, "kl": kl_divergence}


class CutMixSegConfig(MethodConfig):
    """Settings of CutMix-Seg."""

    distance: Literal["squared", "kl"] = setting(
        "squared", "paper", "squared: sum over the classes of (p - q)^2; kl: the authors' option kld."
    )
    unsupervised_weight: float = setting(1.0, "authors' scripts", "Weight of the paper's distance.", ge=0)
    pixel_weight: float = setting(1.0, "ours", "Weight of a pixel loss (hard, soft, fuzzy).", ge=0)
    decay: float = setting(0.99, "authors' scripts", "Decay of the teacher, weights and buffers.", ge=0, lt=1)
    threshold: float = setting(0.97, "authors' scripts", "Minimum probability of a confident pixel.")
    confidence: Literal["keep", "drop"] = setting(
        "keep", "authors' scripts", "keep: scale the loss by the fraction of confident pixels; drop: do not."
    )
    per_pixel: bool = setting(
        False,
        "authors' scripts",
        "Drop each pixel below the threshold instead (an option of the authors' code). The fuzzy loss is then cross "
        "entropy, since every remaining pixel has K = 1 and a weight of at least 0.99.",
    )
    box_area: float = setting(0.5, "authors' scripts", "Fraction of the image that the box covers.", gt=0, le=1)
    colour: bool = setting(False, "paper", "Strong colour jitter for the student (true in the authors' scripts).")
    images: Literal["all", "unlabelled"] = setting("all", "authors' code", "Images to mix; all: also labelled ones.")


class CutMixSeg(Method):
    """A mean teacher with CutMix."""

    Config = CutMixSegConfig
    config: CutMixSegConfig
    paper_only = ("distance", "unsupervised_weight")
    pixel_only = ("pixel_weight",)
    paper = "CutMix-Seg, French et al., BMVC 2020"
    fuzzy = "variant"
    cost = "two networks, one trained; student 2 forwards, teacher 2 without gradient"
    keeps = "teacher: average of the student's weights and buffers"

    def __init__(self, network: Network, *rest: Any) -> None:
        super().__init__(network, *rest)
        self.student = network()
        self.teacher = teacher_of(self.student)
        self.streams = mixing_streams(COLOUR if self.config.colour else Weak(), self.config.images)

    def notes(self, size: tuple[int, int]) -> list[str]:
        """Return a note if `per_pixel` is set and the confidence mask reduces FPL to cross entropy."""
        alone = self.config.per_pixel and self.config.confidence == "keep"
        return under_mask(self.pixel_loss, self.config.threshold) if alone else []

    def predictor(self) -> nn.Module:
        """Return the teacher, as in the authors' evaluation."""
        return self.teacher

    def forward(self, batch: Mapping[str, Batch], progress: Progress) -> Step:
        """Compute the supervised loss and the distance from the student's to the teacher's mixed prediction."""
        labelled, a, b = batch["labelled"], batch["unlabelled"], batch["partner"]
        supervised = self.supervised_loss(self.student(labelled.image), labelled.mask)
        area = (self.config.box_area, self.config.box_area)
        mask = box_masks(a.seed, a.size, boxes=1, area=area).to(a.image.device)  # (B,H,W), True: partner
        with torch.no_grad(), without_dropout(self.teacher):
            teacher = Mixed(self.teacher(a.image), self.teacher(b.image), mask)
        valid = paste(a.valid, b.valid, mask)
        images = (a.strong[0], b.strong[0]) if self.config.colour else (a.image, b.image)
        z = self.student(paste(*images, mask))  # (B,C,h,w)
        weight = self.config.unsupervised_weight if self.pixel_loss is None else self.config.pixel_weight
        loss, metrics = self.unlabelled_map(DISTANCES[self.config.distance], z, teacher, valid, progress)  # (B,H,W)
        if self.config.confidence == "keep":
            sure = (confidence_map(teacher, a.size) >= self.config.threshold).float()
            share = local_mean(sure, valid)
            loss = loss * (sure if self.config.per_pixel else share)
            metrics = {**metrics, "sure": share}
        # As published, the mean is over all pixels; padding contributes 0
        unsupervised = masked_mean(loss, torch.ones_like(valid))
        return Step({"supervised": supervised, "unsupervised": weight * unsupervised}, metrics)

    def after_step(self, progress: Progress) -> None:
        """Update the teacher's weights and batch-norm statistics by EMA, without a warm-up."""
        follow(self.teacher, self.student, self.config.decay, buffers="average")
