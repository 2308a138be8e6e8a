"""Adversarial Learning for Semi-Supervised Semantic Segmentation.

W.-C. Hung, Y.-H. Tsai, Y.-T. Liou, Y.-Y. Lin, M.-H. Yang, BMVC 2018. A discriminator learns to tell, pixel by pixel,
label maps from predictions. The network learns to pass for a label map, on labelled and unlabelled images; and where,
on unlabelled ones, the discriminator takes it for one, it learns from its own most probable class.

FPL is native in that self-taught term: teacher and student are the same logits of the same forward, so K > 1 only where
the network itself is undecided. The discriminator's mask does not depend on the largest probability and stays. With
K > 1 nothing is sharpened among the positives: keep the late start.

One forward, one backward, one step, which is what the authors' code does too: both networks' gradients are taken at the
same weights. The discriminator is frozen while the network learns through it, and sees detached predictions while it
learns itself.

Where we leave the authors' code, and why. Padding of unlabelled images teaches nothing. A step in which no pixel passes
the mask still trains the rest. The weight of the labelled adversarial term is that of the published commands, .01 (the
code's default is ten times that). Batch norm is trained (there its weights are frozen); the run's own settings say how
the network learns (there SGD with 2.5e-4, head times ten). Per process: nothing beside batch-norm statistics. With
accumulated batches the self-taught term is averaged over batches of unequal numbers of selected pixels.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from fuzzyseg.data.views import Batch, Stream, Weak
from fuzzyseg.losses import masked_mean
from fuzzyseg.losses.arguments import at_size, full_precision
from fuzzyseg.losses.reduction import local_mean
from fuzzyseg.methods.base import Facts, Method, MethodConfig, Network, PixelLossModule, Progress, Role, Step
from fuzzyseg.methods.base import SupervisedLoss as Supervised
from fuzzyseg.networks.discriminator import Discriminator
from fuzzyseg.ops.gradient import frozen

VOID = 255


class AdvSemSegConfig(MethodConfig):
    """Settings of AdvSemSeg."""

    labelled_weight: float = Field(0.01, ge=0, description="Adversarial term, labelled images (published commands).")
    unlabelled_weight: float = Field(0.001, ge=0, description="Adversarial term, unlabelled images (authors' code).")
    self_weight: float = Field(0.1, ge=0, description="Self-taught term (paper).")
    self_start: float = Field(0.25, ge=0, le=1, description="Share of the run before it (paper: 5000 of 20000).")
    threshold: float = Field(0.2, ge=0, le=1, description="Pixels that look at least so real are learnt from (paper).")
    discriminator_width: int = Field(64, ge=1, description="Channels of the discriminator's first layer (paper).")
    discriminator_lr: float = Field(1e-4, gt=0, description="Adam's rate for it (paper); the schedule moves it.")


class AdvSemSeg(Method):
    """Adversarial learning."""

    Config = AdvSemSegConfig
    paper_loss = ("hard", {})
    paper = "AdvSemSeg, Hung et al., BMVC 2018"
    fuzzy = "native"
    shares_forward = True
    cost = "one network, 2 forwards; a discriminator of 2.8 M parameters, 5 forwards at image size"

    def __init__(
        self,
        network: Network,
        supervised_loss: Supervised,
        pixel_loss: PixelLossModule | None,
        config: AdvSemSegConfig,
        facts: Facts,
    ) -> None:
        super().__init__(network, supervised_loss, pixel_loss, config, facts)
        self.config: AdvSemSegConfig = config
        self.student = network()
        self.discriminator = Discriminator(facts.classes, config.discriminator_width)
        # label maps that the discriminator is shown are drawn apart from those that the network learns from
        self.streams = {
            "labelled": Stream(Weak(), "labelled"),
            "unlabelled": Stream(Weak(), "unlabelled"),
            "real": Stream(Weak(), "labelled"),
        }

    def roles(self) -> dict[str, Role]:
        """The discriminator has Adam and a rate of its own."""
        roles, critic = super().roles(), list(self.discriminator.parameters())
        own = {id(p) for p in critic}
        roles["head"].params = [p for p in roles["head"].params if id(p) not in own]
        adam = Role(critic, lr=self.config.discriminator_lr, optimiser="adam", betas=(0.9, 0.99), decay=False)
        return {**roles, "discriminator": adam}

    def forward(self, batch: Mapping[str, Batch], progress: Progress) -> Step:
        """Supervised, adversarial and self-taught terms of the network, and the discriminator's own."""
        labelled, free, real = batch["labelled"], batch["unlabelled"], batch["real"]
        assert labelled.mask is not None and real.mask is not None and self.pixel_loss is not None
        config, known = self.config, labelled.mask != VOID
        z, z_free = self.student(labelled.image), self.student(free.image)  # (B,C,h,w)
        p, p_free = (at_size(logits, free.size).softmax(1) for logits in (z, z_free))  # (B,C,H,W)

        # The network passes for a label map: the gradient flows through the discriminator, not into it
        with frozen(self.discriminator):
            d, d_free = self.discriminator(p), self.discriminator(p_free)  # (B,1,H,W) logits
        passes = masked_mean(looks(d, real=True), known)
        passes_free = masked_mean(looks(d_free, real=True), free.valid)

        # It learns from itself where it passes
        selected = free.valid & (d_free.detach().float().sigmoid().squeeze(1) >= config.threshold)
        own = self.pixel_loss(z_free, z_free.detach(), size=free.size, valid=free.valid, progress=progress)
        started = progress.step >= round(config.self_start * progress.total)

        # The discriminator learns to tell one from the other
        fake = looks(self.discriminator(torch.cat([p, p_free]).detach()), real=False)
        told_fake = masked_mean(fake, torch.cat([known, free.valid]))
        told_real = masked_mean(looks(self.discriminator(one_hot(real.mask, p.shape[1])), real=True), real.mask != VOID)
        losses = {
            "supervised": self.supervised_loss(z, labelled.mask),
            "adversarial": config.labelled_weight * passes,
            "adversarial_unlabelled": config.unlabelled_weight * passes_free,
            "self_taught": config.self_weight * started * masked_mean(own.loss, selected),
            "discriminator": (told_fake + told_real) / 2,
        }
        return Step(losses, {**own.stats, "selected": local_mean(selected.float(), free.valid)})


def looks(logits: Tensor, *, real: bool) -> Tensor:
    """Binary cross entropy (B,H,W) of the discriminator's logits (B,1,H,W) against real or not."""
    with full_precision(logits.device):
        z = logits.float().squeeze(1)
        return F.softplus(-z if real else z)


def one_hot(mask: Tensor, classes: int) -> Tensor:
    """(B,C,H,W) fp32 of a mask (B,H,W) int64; void is zero in every class."""
    label = torch.arange(classes, device=mask.device).view(1, -1, 1, 1)
    return (mask.unsqueeze(1) == label).float()
