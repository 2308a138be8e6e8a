"""Adversarial Learning for Semi-Supervised Semantic Segmentation.

W.-C. Hung, Y.-H. Tsai, Y.-T. Liou, Y.-Y. Lin, M.-H. Yang, BMVC 2018. A discriminator learns to distinguish label maps
from predictions, pixel by pixel. The network learns to make predictions that look like label maps, on labelled and
unlabelled images. Where the discriminator accepts a prediction for an unlabelled image, the network also learns from
its own most probable class (self-taught loss).

FPL replaces the cross entropy in the self-taught loss: teacher and student are the logits of the same forward pass, so
K > 1 only where the network itself is undecided. The discriminator's mask does not depend on the largest probability
and is kept. With K > 1, the loss does not sharpen the prediction among the positives, so the late start should be kept.

As in the authors' code, each step has one forward and one backward pass, and the gradients of both networks are
computed at the same weights. The discriminator is frozen while the network learns through it, and is itself trained on
detached predictions.

Unlike the authors' code, we exclude padding of unlabelled images from the losses, and apply the other losses even in
steps in which no pixel passes the mask. We train batch norm, which the authors freeze, and train the network with the
run's optimiser (the authors use SGD with a learning rate of 2.5e-4, and ten times that for the head). Each process
computes its own batch-norm statistics. With gradient accumulation, the self-taught loss is averaged over micro-batches
regardless of how many pixels each selects.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fuzzyseg.data.views import Batch, Stream, Weak
from fuzzyseg.losses import masked_mean
from fuzzyseg.losses.base import at_size, full_precision, local_mean
from fuzzyseg.losses.supervised import VOID
from fuzzyseg.methods.adv_semseg.discriminator import Discriminator
from fuzzyseg.methods.base import Method, MethodConfig, Network, Progress, Role, Step, critic, setting
from fuzzyseg.ops.gradient import frozen


class AdvSemSegConfig(MethodConfig):
    """Settings of AdvSemSeg."""

    labelled_weight: float = setting(0.01, "published commands", "Adversarial weight, labelled (code: 0.1).", ge=0)
    unlabelled_weight: float = setting(0.001, "authors' code", "Adversarial weight, unlabelled.", ge=0)
    self_weight: float = setting(0.1, "paper", "Weight of the self-taught term.", ge=0)
    self_start: float = setting(0.25, "paper, 5000 of 20000", "Fraction of the run before self-training.", ge=0, le=1)
    threshold: float = setting(0.2, "paper", "Minimum discriminator output of a self-taught pixel.", ge=0, le=1)
    discriminator_width: int = setting(64, "paper", "Channels of the discriminator's first layer.", ge=1)
    discriminator_lr: float = setting(1e-4, "paper", "Its Adam learning rate, times the run's schedule.", gt=0)


class AdvSemSeg(Method):
    """Adversarial training with a discriminator and a self-taught loss."""

    Config = AdvSemSegConfig
    config: AdvSemSegConfig
    paper_loss = ("hard", {})
    paper = "AdvSemSeg, Hung et al., BMVC 2018"
    shares_forward = True
    cost = "one network, 2 forwards; a discriminator of 2.8 M parameters, 5 forwards at image size"

    def __init__(self, network: Network, *rest: Any) -> None:
        super().__init__(network, *rest)
        self.student = network()
        self.discriminator = Discriminator(self.facts.classes, self.config.discriminator_width)
        self.streams = {
            "labelled": Stream(Weak(), "labelled"),
            "unlabelled": Stream(Weak(), "unlabelled"),
            "real": Stream(Weak(), "labelled"),  # label maps for the discriminator, sampled independently
        }

    def roles(self) -> dict[str, Role]:
        """Return the roles backbone, head and discriminator (Adam with its own learning rate)."""
        return self.roles_beside({"discriminator": critic(self.discriminator, self.config.discriminator_lr)})

    def forward(self, batch: Mapping[str, Batch], progress: Progress) -> Step:
        """Compute the network's supervised, adversarial and self-taught losses, and the discriminator's loss."""
        labelled, free, real = batch["labelled"], batch["unlabelled"], batch["real"]
        assert labelled.mask is not None and real.mask is not None
        config, known = self.config, labelled.mask != VOID
        z, z_free = self.student(labelled.image), self.student(free.image)  # (B,C,h,w)
        p, p_free = (at_size(logits, free.size).softmax(1) for logits in (z, z_free))  # (B,C,H,W)

        # Adversarial: the gradient flows through the discriminator, not into it
        with frozen(self.discriminator):
            d, d_free = self.discriminator(p), self.discriminator(p_free)  # (B,1,H,W) logits
        deceives = masked_mean(adversarial_loss(d, real=True), known)
        deceives_free = masked_mean(adversarial_loss(d_free, real=True), free.valid)

        # Self-taught, where the discriminator accepts the prediction
        selected = free.valid & (d_free.detach().float().sigmoid().squeeze(1) >= config.threshold)
        self_taught = self.pixel_loss(z_free, z_free.detach(), size=free.size, valid=free.valid, progress=progress)
        started = progress.step >= round(config.self_start * progress.total)

        # The discriminator's loss
        fake = adversarial_loss(self.discriminator(torch.cat([p, p_free]).detach()), real=False)
        loss_fake = masked_mean(fake, torch.cat([known, free.valid]))
        genuine = adversarial_loss(self.discriminator(one_hot(real.mask, p.shape[1])), real=True)
        loss_real = masked_mean(genuine, real.mask != VOID)
        losses = {
            "supervised": self.supervised_loss(z, labelled.mask),
            "adversarial": config.labelled_weight * deceives,
            "adversarial_unlabelled": config.unlabelled_weight * deceives_free,
            "self_taught": config.self_weight * started * masked_mean(self_taught.loss, selected),
            "discriminator": (loss_fake + loss_real) / 2,
        }
        return Step(losses, {**self_taught.stats, "selected": local_mean(selected.float(), free.valid)})


def adversarial_loss(logits: Tensor, *, real: bool) -> Tensor:
    """Return the binary cross entropy (B,H,W) of the discriminator's logits (B,1,H,W) against real or fake."""
    with full_precision(logits.device):
        z = logits.float().squeeze(1)
        return F.softplus(-z if real else z)


def one_hot(mask: Tensor, classes: int) -> Tensor:
    """Return the one-hot encoding (B,C,H,W) fp32 of a mask (B,H,W) int64; void is zero in every class."""
    label = torch.arange(classes, device=mask.device).view(1, -1, 1, 1)
    return (mask.unsqueeze(1) == label).float()
