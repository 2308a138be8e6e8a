"""Guided Collaborative Training for Pixel-wise Semi-Supervised Learning.

Z. Ke, D. Qiu, K. Li, Q. Yan, R. W. H. Lau, ECCV 2020. Two networks that start apart see the same images; a flaw
detector tells, pixel by pixel, how wrong each of them is. Where one is better it teaches the other (dynamic
consistency); where both are bad the detector is the critic: its output is pushed to zero through them (flaw
correction). The detector itself learns, on labelled images, from the difference of prediction and label.

FPL here is ours: the dynamic consistency regresses a whole distribution. A pixel loss takes its place on the pixels
where the other network wins, taught by that network's logits; the comparison of flaws, which takes the place of a
confidence mask, stays, and so does the flaw correction.

Where we leave the authors' code, and why. It takes three steps, in turn; here all three networks move at once, by
gradients at the same weights: targets are detached, the detector is frozen as a critic. Void and padding count nowhere
(there void is "half wrong"). A map without flaws is 0, not below. The detector's batch-norm statistics move by the
forwards that train it only. Up to 91 pixels give it one cell: nobody teaches. Per process: all batch-norm statistics.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from fuzzyseg.data.views import Batch, Stream, Weak
from fuzzyseg.losses import masked_mean
from fuzzyseg.losses.arguments import at_size
from fuzzyseg.losses.consistency import squared_error
from fuzzyseg.losses.reduction import local_mean
from fuzzyseg.methods.base import Facts, Method, MethodConfig, Network, PixelLossModule, Progress, Role, Step
from fuzzyseg.methods.base import SupervisedLoss as Supervised
from fuzzyseg.methods.gct.flaw_map import flaw_target, handled, teaching
from fuzzyseg.networks.discriminator import FlawDetector
from fuzzyseg.ops.gradient import frozen
from fuzzyseg.ops.module_mode import without_dropout
from fuzzyseg.ops.ramp import sigmoid_ramp


class GCTConfig(MethodConfig):
    """Settings of GCT."""

    unsupervised_weight: float | None = Field(
        None,
        ge=0,
        description="Of the dynamic consistency; None: 100 (paper, a mean over classes), with a pixel loss 1.",
    )
    correction_weight: float = Field(1.0, ge=0, description="Of the flaw correction (paper).")
    detector_weight: float = Field(10.0, ge=0, description="Of the detector's own loss (authors' scripts).")
    ramp_share: float = Field(0.1, ge=0, le=1, description="Share of the run over which consistency grows (scripts).")
    xi: float = Field(0.6, gt=0, lt=1, description="From this flaw on a pixel is bad (paper).")
    clip: float = Field(0.1, ge=0, description="An image with no larger flaw has none (authors' code).")
    mu: float = Field(0.5, gt=0, le=1, description="Scale of the detector's target (paper); no effect once stretched.")
    nu: int = Field(1, ge=0, description="How often the target is dilated and blurred (paper).")
    detector_width: int = Field(64, ge=2, description="Channels of the detector's first layer (authors' code).")
    detector_lr: float = Field(1e-4, gt=0, description="Adam's rate for the detector (paper); the schedule moves it.")


class GCT(Method):
    """Guided collaborative training."""

    Config = GCTConfig
    learners: ClassVar[int] = 2
    paper = "GCT, Ke et al., ECCV 2020"
    fuzzy = "variant"
    shares_forward = True
    cost = "two networks, each 2 forwards; a detector of 8.3 M parameters, 4 forwards at image size"

    def __init__(
        self,
        network: Network,
        supervised_loss: Supervised,
        pixel_loss: PixelLossModule | None,
        config: GCTConfig,
        facts: Facts,
    ) -> None:
        super().__init__(network, supervised_loss, pixel_loss, config, facts)
        self.config: GCTConfig = config
        self.first, self.second = network(), network()
        if all(torch.equal(a, b) for a, b in zip(self.first.parameters(), self.second.parameters(), strict=True)):
            raise ValueError(
                "the two networks of GCT start from equal weights and would teach each other nothing: "
                "give two files trained from different seeds (--init FILE,FILE)"
            )
        self.detector = FlawDetector(facts.channels, facts.classes, config.detector_width)
        published = 100.0 if pixel_loss is None else 1.0
        self.weight = published if config.unsupervised_weight is None else config.unsupervised_weight
        self.streams = {"labelled": Stream(Weak(), "labelled"), "unlabelled": Stream(Weak(), "unlabelled")}

    def notes(self, size: tuple[int, int]) -> list[str]:
        """That small crops leave the networks without a teacher."""
        note = f"crops up to {self.detector.one_cell} pixels are one cell to GCT: nobody teaches, --loss has no effect"
        return [note] if max(size) <= self.detector.one_cell else []

    def predictor(self) -> nn.Module:
        """The first network."""
        return self.first

    def pair(self) -> tuple[nn.Module, nn.Module]:
        """The direction in which the first network learns from the second, where the second wins."""
        return self.first, self.second

    def roles(self) -> dict[str, Role]:
        """The detector has Adam and a rate of its own."""
        roles, detector = super().roles(), list(self.detector.parameters())
        own = {id(p) for p in detector}
        roles["head"].params = [p for p in roles["head"].params if id(p) not in own]
        adam = Role(detector, lr=self.config.detector_lr, optimiser="adam", betas=(0.9, 0.99), decay=False)
        return {**roles, "detector": adam}

    def forward(self, batch: Mapping[str, Batch], progress: Progress) -> Step:
        """Supervised, consistency where the other is better, correction where both are bad, the detector's own."""
        labelled, free = batch["labelled"], batch["unlabelled"]
        assert labelled.mask is not None
        image, valid = torch.cat([labelled.image, free.image]), torch.cat([labelled.valid, free.valid])
        z = [self.first(image), self.second(image)]  # (B,C,h,w), labelled first
        q = [at_size(logits, free.size).softmax(1) for logits in z]  # (B,C,H,W)
        flaws = [self.detector(image, one.detach()).float() for one in q]  # (B,1,H,W), to train the detector
        learns, both_bad = self.compare(*flaws)
        with frozen(self.detector), without_dropout(self.detector, update_statistics=False):
            critics = [self.detector(image, one).float().squeeze(1) for one in q]
        terms: dict[str, list[Tensor]] = {"supervised": [], "consistency": [], "correction": [], "detector": []}
        stats: dict[str, Tensor] = {}
        count, known = len(labelled.mask), labelled.mask != 255
        for one in (0, 1):
            student, teacher = z[one], z[1 - one].detach()
            if self.pixel_loss is None:
                loss = squared_error(student, teacher, size=free.size, valid=valid) / student.shape[1]
            else:
                result = self.pixel_loss(student, teacher, size=free.size, valid=valid, progress=progress)
                loss, stats = result.loss, {k: v / 2 + stats.get(k, 0) for k, v in result.stats.items()}
            target = flaw_target(q[one][:count], labelled.mask, mu=self.config.mu, nu=self.config.nu)
            error = (flaws[one][:count] - target).square().squeeze(1)
            terms["supervised"].append(self.supervised_loss(student[:count], labelled.mask))
            terms["consistency"].append(masked_mean(loss * learns[one], valid))
            terms["correction"].append(masked_mean(critics[one].square() * both_bad, valid))
            terms["detector"].append(masked_mean(error, known) / 2)
        ramp = sigmoid_ramp(progress.step, round(self.config.ramp_share * progress.total))
        weights = {"consistency": self.weight * ramp, "correction": self.config.correction_weight}
        weights["detector"] = self.config.detector_weight
        losses = {name: weights.get(name, 1.0) * torch.stack(pair).sum() for name, pair in terms.items()}
        shares = {"first_learns": learns[0], "second_learns": learns[1], "both_bad": both_bad}
        return Step(losses, {**stats, **{name: local_mean(where.float(), valid) for name, where in shares.items()}})

    def compare(self, first: Tensor, second: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """Where the first learns, where the second, and where both are bad: (B,H,W) bool, from flaw maps (B,1,H,W)."""
        maps = (handled(flaw.detach(), clip=self.config.clip) for flaw in (first, second))
        one, two, both = (where.squeeze(1) for where in teaching(*maps, xi=self.config.xi))
        return (one, two), both
