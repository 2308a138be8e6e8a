"""Virtual Adversarial Training: A Regularization Method for Supervised and Semi-Supervised Learning (VAT).

T. Miyato, S. Maeda, M. Koyama, S. Ishii, TPAMI 2018. VAT finds, for each image, the small perturbation that changes the
prediction most, and trains the network to make the same prediction as for the clean image. The adaptive radius and the
variant with a mean teacher (`target: teacher`) follow G. French et al., "Semi-supervised semantic segmentation needs
strong, varied perturbations", BMVC 2020, where VAT is a baseline.

The paper's target is a full distribution, so support for FPL is our addition: a pixel loss replaces the KL divergence
as the loss. The direction is still found with the KL divergence. `confidence`, if set, scales the loss by one number
and filters no pixels, so K > 1 remains possible.

Unlike the authors' code, we compute the direction's gradient at an offset that fp32 resolves (the 1e-4 of French et al.
is mostly rounding error), without autocast or TF32. Forward passes that are compared with each other use no dropout,
and only the one on the clean image updates batch-norm statistics. The confidence is computed over valid pixels. Padding
is excluded from the loss, but its border contributes to the radius. We implement neither other divergences nor a
direction from the student with a target from the teacher. Each process computes its own batch-norm statistics
and confidence, and draws its own initial directions.
"""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from fuzzyseg.data.views import Batch, Stream, Weak, WeakStrong
from fuzzyseg.losses import masked_mean
from fuzzyseg.losses.base import local_mean
from fuzzyseg.losses.consistency import confidence_map, kl_divergence
from fuzzyseg.methods.base import Method, MethodConfig, Network, Progress, Step, setting
from fuzzyseg.ops.ema import follow, teacher_of
from fuzzyseg.ops.gradient import adversarial_direction, difference_norm, small_differences
from fuzzyseg.ops.module_mode import without_dropout

_JITTER = WeakStrong(1, 0.4, 0.4, 0.4, 0.1, jitter_probability=0.8, grey_probability=0.2, blur_probability=0.0)


class VATConfig(MethodConfig):
    """Settings of VAT."""

    unsupervised_weight: float | None = setting(None, "French et al.; ours", "alpha; None: 0.1 (pixel loss: 1).", ge=0)
    radius: Literal["adaptive", "fixed"] = setting(
        "adaptive", "French et al.", "adaptive: half the norm of the image's differences; fixed: sqrt(Cin H W)."
    )
    epsilon: float | None = setting(None, "French et al.", "Radius factor; None: adaptive 1, fixed 0.5.", gt=0)
    probe: float = setting(0.1, "ours", "xi: L2 norm of the offset at which the gradient is computed.", gt=0)
    power: int = setting(1, "Miyato et al.", "Power iterations.", ge=1)
    images: Literal["all", "unlabelled"] = setting("all", "both papers", "Images of the loss; all: also labelled ones.")
    target: Literal["student", "teacher"] = setting(
        "student", "Miyato et al.", "Network for target and direction; teacher: a mean teacher (French et al.)."
    )
    ema_decay: float = setting(0.99, "French et al.", "Decay of the mean teacher.", ge=0, lt=1)
    jitter: bool = setting(False, "Miyato et al.", "Colour jitter of the student's images (true in French et al.).")
    confidence: float | None = setting(
        None, "Miyato et al.", "Scale the loss by the fraction of pixels above it (0.97 in French et al.).", gt=0, lt=1
    )


class VAT(Method):
    """Virtual adversarial training."""

    Config = VATConfig
    config: VATConfig
    paper = "VAT, Miyato et al., TPAMI 2018 (segmentation: French et al., BMVC 2020)"
    fuzzy = "variant"
    cost = "one network: 2 forwards without weight gradients (one with image gradient), 1 with; teacher: a copy"
    keeps = "nothing (target=teacher: a mean teacher)"
    unsharded = "computes its direction by a backward pass inside the forward pass"

    def __init__(self, network: Network, *rest: Any) -> None:
        super().__init__(network, *rest)
        config = self.config
        self.student = network()
        self.teacher = teacher_of(self.student).eval() if config.target == "teacher" else None
        published = 0.1 if self.pixel_loss is None else 1.0
        self.weight = published if config.unsupervised_weight is None else config.unsupervised_weight
        self.epsilon = {"adaptive": 1.0, "fixed": 0.5}[config.radius] if config.epsilon is None else config.epsilon
        view = _JITTER if config.jitter else Weak()
        self.streams = {"labelled": Stream(Weak(), "labelled"), "unlabelled": Stream(view, config.images)}

    def predictor(self) -> nn.Module:
        """Return the mean teacher if there is one, otherwise the student."""
        return self.student if self.teacher is None else self.teacher

    def train(self, mode: bool = True) -> Self:
        """Keep the teacher in evaluation mode; its batch-norm statistics are EMAs of the student's."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    def forward(self, batch: Mapping[str, Batch], progress: Progress) -> Step:
        """Compute the supervised loss and alpha times the divergence or pixel loss of the perturbed images."""
        labelled, free = batch["labelled"], batch["unlabelled"]
        supervised = self.supervised_loss(self.student(labelled.image), labelled.mask)
        source = self.student if self.teacher is None else self.teacher
        with torch.no_grad(), small_differences(free.image.device), without_dropout(source):
            target = source(free.image)  # (B,C,h,w), of the clean image
        image = free.strong[0] if self.config.jitter else free.image  # (B,Cin,H,W)
        offset, radius = self.perturbation(source, image, target, free.valid)
        same = without_dropout(self.student, update_statistics=False) if self.teacher is None else nullcontext()
        with same:
            logits = self.student(image + offset)
        loss, stats = self.unlabelled_map(kl_divergence, logits, target, free.valid, progress)
        metrics = {"radius": radius.mean(), **stats}
        if self.config.confidence is not None:
            sure = confidence_map(target, free.size) >= self.config.confidence
            metrics["sure"] = local_mean(sure.to(loss.dtype), free.valid)
            loss = loss * metrics["sure"]
        return Step({"supervised": supervised, "unsupervised": self.weight * masked_mean(loss, free.valid)}, metrics)

    def perturbation(self, source: nn.Module, image: Tensor, target: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Return each image's adversarial perturbation (B,Cin,H,W) and its L2 norm (B,), without gradient."""

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
        """Update the mean teacher's weights and batch-norm statistics by EMA, as in French et al."""
        if self.teacher is not None:
            follow(self.teacher, self.student, self.config.ema_decay, buffers="average")
