"""Virtual Adversarial Training: A Regularization Method for Supervised and Semi-Supervised Learning.

T. Miyato, S. Maeda, M. Koyama, S. Ishii, TPAMI 2018. For each image the small change of its pixels is found that
changes the network's prediction most, and the network learns to predict there what it predicts without it. The radius
that follows the image, and the form with a mean teacher (`target: teacher`), are those of G. French et al.,
"Semi-supervised semantic segmentation needs strong, varied perturbations", BMVC 2020, where it is a baseline.

FPL here is ours: the paper's target is a whole distribution. A pixel loss takes the place of the divergence by which
the network learns; the direction is still found with the KL divergence, and the scalar confidence stays if set (it
scales the loss and filters no pixel, so that K > 1 survives).

Where we leave the authors' code, and why. The direction is found at a probe that fp32 can tell from nothing (that of
French et al. is 1e-4, mostly rounding), without autocast and TF32. Forwards that are compared run without dropout and
move no batch-norm statistics but once, with the clean image. The confidence is that of valid pixels. Padding teaches
nothing, but its edge counts in the radius. Not implemented: divergences other than KL, and a student that gives the
direction where a teacher gives the target.
Per process: the noise that the direction starts from, batch-norm statistics, the scalar confidence.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from fuzzyseg.data.views import Batch, Stream, Weak, WeakStrong
from fuzzyseg.losses import masked_mean
from fuzzyseg.losses.consistency import confidence_map, kl_divergence
from fuzzyseg.losses.reduction import local_mean
from fuzzyseg.methods.base import Facts, Method, MethodConfig, Network, PixelLossModule, Progress, Step, SupervisedLoss
from fuzzyseg.ops.ema import follow, teacher_of
from fuzzyseg.ops.gradient import adversarial_direction, difference_norm, small_differences
from fuzzyseg.ops.module_mode import without_dropout

_JITTER = WeakStrong(1, 0.4, 0.4, 0.4, 0.1, jitter_probability=0.8, grey_probability=0.2, blur_probability=0.0)


class VATConfig(MethodConfig):
    """Settings of VAT."""

    unsupervised_weight: float | None = Field(None, ge=0, description="alpha; None: .1 (French et al.), pixel loss 1.")
    radius: Literal["adaptive", "fixed"] = Field("adaptive", description="adaptive: follows the image (French et al.).")
    epsilon: float | None = Field(
        None,
        gt=0,
        description="Times half the differences' norm (adaptive; None: 1), or sqrt(Cin H W) (None: .5): French et al.",
    )
    probe: float = Field(0.1, gt=0, description="xi: L2 norm of the offset where the gradient is taken (our choice).")
    power: int = Field(1, ge=1, description="Power iterations (Miyato et al.: 1).")
    images: Literal["all", "unlabelled"] = Field("all", description="all: labelled images too, as in both papers.")
    target: Literal["student", "teacher"] = Field("student", description="teacher: a mean teacher's (French et al.).")
    ema_decay: float = Field(0.99, ge=0, lt=1, description="Decay of the mean teacher (French et al.).")
    jitter: bool = Field(False, description="The student's image has other colours than the target's (French et al.).")
    confidence: float | None = Field(None, gt=0, lt=1, description="Loss times the sure share (French et al.: .97).")


class VAT(Method):
    """Virtual adversarial training."""

    Config = VATConfig
    paper = "VAT, Miyato et al., TPAMI 2018 (segmentation: French et al., BMVC 2020)"
    fuzzy = "variant"
    cost = "one network: 2 forwards without gradient to the weights (one with, to the image), 1 with; teacher: a copy"
    keeps = "target: teacher keeps a mean teacher"

    def __init__(
        self,
        network: Network,
        supervised_loss: SupervisedLoss,
        pixel_loss: PixelLossModule | None,
        config: VATConfig,
        facts: Facts,
    ) -> None:
        super().__init__(network, supervised_loss, pixel_loss, config, facts)
        self.config: VATConfig = config
        self.student = network()
        self.teacher = teacher_of(self.student).eval() if config.target == "teacher" else None
        published = 0.1 if pixel_loss is None else 1.0
        self.weight = published if config.unsupervised_weight is None else config.unsupervised_weight
        self.epsilon = {"adaptive": 1.0, "fixed": 0.5}[config.radius] if config.epsilon is None else config.epsilon
        view = _JITTER if config.jitter else Weak()
        self.streams = {"labelled": Stream(Weak(), "labelled"), "unlabelled": Stream(view, config.images)}

    def predictor(self) -> nn.Module:
        """The mean teacher where there is one."""
        return self.student if self.teacher is None else self.teacher

    def train(self, mode: bool = True) -> Self:
        """The teacher stays in evaluation mode: its batch-norm statistics are averages of the student's."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    def forward(self, batch: Mapping[str, Batch], progress: Progress) -> Step:
        """Supervised loss plus alpha times the change of the prediction at the adversarial offset."""
        labelled, free = batch["labelled"], batch["unlabelled"]
        assert labelled.mask is not None
        supervised = self.supervised_loss(self.student(labelled.image), labelled.mask)
        source = self.student if self.teacher is None else self.teacher
        with torch.no_grad(), small_differences(free.image.device), without_dropout(source):
            target = source(free.image)  # (B,C,h,w), of the clean image
        seen = free.strong[0] if self.config.jitter else free.image  # (B,Cin,H,W)
        offset, radius = self.perturbation(source, seen, target, free.valid)
        same = without_dropout(self.student, update_statistics=False) if self.teacher is None else nullcontext()
        with same:
            logits = self.student(seen + offset)
        metrics = {"radius": radius.mean()}
        if self.pixel_loss is None:
            loss = kl_divergence(logits, target, size=free.size, valid=free.valid)
        else:
            result = self.pixel_loss(logits, target, size=free.size, valid=free.valid, progress=progress)
            loss, metrics = result.loss, {**metrics, **result.stats}
        if self.config.confidence is not None:
            sure = confidence_map(target, free.size) >= self.config.confidence
            metrics["sure"] = local_mean(sure.to(loss.dtype), free.valid)
            loss = loss * metrics["sure"]
        return Step({"supervised": supervised, "unsupervised": self.weight * masked_mean(loss, free.valid)}, metrics)

    def perturbation(self, source: nn.Module, image: Tensor, target: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """The adversarial offset r (B,Cin,H,W) of each image and its L2 norm (B,), without gradient."""

        def divergence(offset: Tensor) -> Tensor:
            with without_dropout(source, update_statistics=False):
                return kl_divergence(source(image + offset), target, size=image.shape[-2:], valid=valid)

        noise = torch.randn_like(image)
        direction = adversarial_direction(divergence, noise, probe=self.config.probe, power=self.config.power)
        radius = self.epsilon * 0.5 * difference_norm(image)
        if self.config.radius == "fixed":
            radius = torch.full_like(radius, self.epsilon * image[0].numel() ** 0.5)
        return radius.view(-1, 1, 1, 1) * direction, radius

    def after_step(self, progress: Progress) -> None:
        """The mean teacher follows, its batch-norm statistics with it (French et al. average both)."""
        if self.teacher is not None:
            follow(self.teacher, self.student, self.config.ema_decay, buffers="average")
