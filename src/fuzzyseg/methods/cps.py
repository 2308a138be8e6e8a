"""Semi-Supervised Semantic Segmentation with Cross Pseudo Supervision.

X. Chen, Y. Yuan, G. Zeng, J. Wang, CVPR 2021. Two networks that start from different weights see the same image, and
each learns from the pseudo labels of the other. With FPL (Qiao et al., CVPR 2023) in the place of the hard label it is
the paper's FPL+CPS: nothing else changes.

With CutMix (the default) two unlabelled images are mixed by a box mask; the teachers see the two clean images, without
gradient or dropout but with batch statistics, and their logits are mixed by the same mask. Labelled images take no part
in the unsupervised term then, as in the authors' code; without CutMix they do, as in the paper.

Both directions go through one call of the pixel loss, stacked along the batch: a scale that the loss takes from its
pixels (`loss.balance`) is one factor over both, as in the released code of FPL.

Where we leave the authors' code, and why. The two images of a mix are different ones (theirs are two crops of one file,
because two samplers share a seed); `pair: same` is not offered. Losses are not divided by the number of processes. The
boxes of a mask never start outside the image. Padding is not trained on. Batch-norm statistics stay per process.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field, field_validator
from torch import Tensor

from fuzzyseg.data.views import Batch, Stream, Weak
from fuzzyseg.losses import masked_mean
from fuzzyseg.methods.base import Facts, Method, MethodConfig, Network, PixelLossModule, Progress, Step, SupervisedLoss
from fuzzyseg.ops.mix import Mixed, box_masks, paste
from fuzzyseg.ops.module_mode import without_dropout
from fuzzyseg.ops.ramp import linear_ramp


class CPSConfig(MethodConfig):
    """Settings of CPS."""

    cutmix: bool = Field(True, description="Mix pairs of unlabelled images (paper: CPS+CutMix); False: plain CPS.")
    unsupervised_weight: float | None = Field(
        None, ge=0, description="lambda; None: 1 with CutMix, 1.5 without (VOC; the paper has 5 and 6 on Cityscapes)."
    )
    ramp_steps: int = Field(0, ge=0, description="Steps over which lambda grows from 0; the paper has none.")
    boxes: int = Field(3, ge=1, description="Boxes per CutMix mask (the authors' setting).")
    box_area: tuple[float, float] = Field((0.25, 0.5), description="Range of the boxes' total share (the authors').")

    @field_validator("box_area")
    @classmethod
    def _shares(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1] <= 1:
            raise ValueError("expected two shares in (0, 1], the smaller one first")
        return value


class CPS(Method):
    """Cross pseudo supervision, with and without CutMix."""

    Config = CPSConfig
    learners: ClassVar[int] = 2
    paper_loss = ("hard", {})
    paper = "CPS, Chen et al., CVPR 2021 (CutMix: French et al., BMVC 2020)"
    cost = "two networks; each 2 forwards with gradient (CutMix: and 2 without)"

    def __init__(
        self,
        network: Network,
        supervised_loss: SupervisedLoss,
        pixel_loss: PixelLossModule | None,
        config: CPSConfig,
        facts: Facts,
    ) -> None:
        super().__init__(network, supervised_loss, pixel_loss, config, facts)
        self.config: CPSConfig = config
        self.first = network()
        self.second = network()
        if all(torch.equal(a, b) for a, b in zip(self.first.parameters(), self.second.parameters(), strict=True)):
            raise ValueError(
                "the two networks of CPS start from equal weights and would teach each other nothing: "
                "give two files trained from different seeds (--init FILE,FILE)"
            )
        self.shares_forward = not config.cutmix
        published = 1.0 if config.cutmix else 1.5
        self.weight = published if config.unsupervised_weight is None else config.unsupervised_weight
        self.streams = {"labelled": Stream(Weak(), "labelled"), "unlabelled": Stream(Weak(), "unlabelled")}
        if config.cutmix:
            self.streams["partner"] = Stream(Weak(), "unlabelled", partner="unlabelled")

    def predictor(self) -> torch.nn.Module:
        """The first network, as in the authors' inference."""
        return self.first

    def pair(self) -> tuple[torch.nn.Module, torch.nn.Module]:
        """One of the two directions: the first network learns from the second."""
        return self.first, self.second

    def forward(self, batch: Mapping[str, Batch], progress: Progress) -> Step:
        """Supervised loss of both networks plus lambda times the cross pseudo supervision."""
        labelled = batch["labelled"]
        assert labelled.mask is not None
        z1, z2 = self.first(labelled.image), self.second(labelled.image)  # (B,C,h,w)
        supervised = self.supervised_loss(z1, labelled.mask) + self.supervised_loss(z2, labelled.mask)
        assert self.pixel_loss is not None
        student, teacher, valid = self._mixed(batch) if self.config.cutmix else self._plain(batch, z1, z2)
        found = self.pixel_loss(student, teacher, size=valid.shape[1:], valid=valid, progress=progress)
        unsupervised = 2 * masked_mean(found.loss, valid)  # the sum of the two directions' means
        ramp = linear_ramp(progress.step, self.config.ramp_steps)
        return Step({"supervised": supervised, "unsupervised": self.weight * ramp * unsupervised}, found.stats)

    def _plain(self, batch: Mapping[str, Batch], z1: Tensor, z2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Students, teachers, valid of both directions: each learns on labelled and unlabelled images alike."""
        unlabelled = batch["unlabelled"]
        z1 = torch.cat([z1, self.first(unlabelled.image)])
        z2 = torch.cat([z2, self.second(unlabelled.image)])
        valid = torch.cat([batch["labelled"].valid, unlabelled.valid])
        return torch.cat([z1, z2]), torch.cat([z2, z1]).detach(), torch.cat([valid, valid])

    def _mixed(self, batch: Mapping[str, Batch]) -> tuple[Tensor, Mixed, Tensor]:
        """The same with students that see the mixed image and teachers that see the clean ones, their logits mixed."""
        a, b = batch["unlabelled"], batch["partner"]
        masks = box_masks(a.seed, a.size, boxes=self.config.boxes, area=self.config.box_area)
        mask = masks.to(a.image.device)  # (B,H,W), True: partner
        with torch.no_grad(), without_dropout(self.first, self.second):
            t1, t2 = ((network(a.image), network(b.image)) for network in (self.first, self.second))
        image, valid = paste(a.image, b.image, mask), paste(a.valid, b.valid, mask)
        students = torch.cat([self.first(image), self.second(image)])
        teachers = Mixed(torch.cat([t2[0], t1[0]]), torch.cat([t2[1], t1[1]]), torch.cat([mask, mask]))
        return students, teachers, torch.cat([valid, valid])
