"""Semi-Supervised Semantic Segmentation with Cross Pseudo Supervision (CPS).

X. Chen, Y. Yuan, G. Zeng, J. Wang, CVPR 2021. Two networks with different initial weights see the same image, and each
learns from the other's pseudo labels. With the fuzzy loss (Qiao et al., CVPR 2023) instead of the hard one this is the
paper's FPL+CPS.

With CutMix (the default) two unlabelled images are mixed by a box mask; the teachers see the two clean images, with
batch statistics but without gradient or dropout, and their logits are mixed by the same mask. Labelled images are then
excluded from the unsupervised term, as in the authors' code; without CutMix they are included, as in the paper.

Both directions go through one call of the pixel loss, stacked along the batch, so that `loss.balance` computes one
factor for both, as in the released code of FPL.

Differences from the authors' code: a mix combines two different images (theirs: two crops of one file, because two
samplers share a seed). Losses are not divided by the number of processes. Boxes never start outside the image. Padding
is excluded from the losses. Computed per process: batch-norm statistics.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fuzzyseg.data.views import Batch, Stream, Weak
from fuzzyseg.losses import masked_mean
from fuzzyseg.methods.base import Method, MethodConfig, Network, Progress, Shares, Step, linear_ramp, setting
from fuzzyseg.networks.heads import check_different
from fuzzyseg.ops.mix import Mixed, box_masks, paste
from fuzzyseg.ops.module_mode import without_dropout


class CPSConfig(MethodConfig):
    """Settings of CPS."""

    cutmix: bool = setting(True, "paper, CPS+CutMix", "Mix pairs of unlabelled images; false: plain CPS.")
    unsupervised_weight: float | None = setting(
        None, "paper, VOC", "lambda; None: 1 with CutMix, 1.5 without (5 and 6 on Cityscapes in the paper).", ge=0
    )
    ramp_steps: int = setting(0, "paper", "Steps over which lambda grows from 0; 0: no ramp.", ge=0)
    boxes: int = setting(3, "authors' code", "Boxes per CutMix mask.", ge=1)
    box_area: Shares = setting((0.25, 0.5), "authors' code", "Range of the total fraction that the boxes cover.")


class CPS(Method):
    """Cross pseudo supervision, with and without CutMix."""

    Config = CPSConfig
    config: CPSConfig
    learners: ClassVar[int] = 2
    paper_loss = ("hard", {})
    paper = "CPS, Chen et al., CVPR 2021 (CutMix: French et al., BMVC 2020)"
    cost = "two networks; each 2 forwards with gradient (CutMix: and 2 without)"

    def __init__(self, network: Network, *rest: Any) -> None:
        super().__init__(network, *rest)
        self.first, self.second = network(), network()
        check_different(self.first, self.second, "CPS")
        cutmix, weight = self.config.cutmix, self.config.unsupervised_weight
        self.shares_forward = not cutmix
        self.weight = weight if weight is not None else 1.0 if cutmix else 1.5
        self.streams = {"labelled": Stream(Weak(), "labelled"), "unlabelled": Stream(Weak(), "unlabelled")}
        if cutmix:
            self.streams["partner"] = Stream(Weak(), "unlabelled", partner="unlabelled")

    def predictor(self) -> nn.Module:
        """The first network, as in the authors' inference code."""
        return self.first

    def pair(self) -> tuple[nn.Module, nn.Module]:
        """Return (student, teacher) for `analyse`: first and second network, one of the two directions."""
        return self.first, self.second

    def forward(self, batch: Mapping[str, Batch], progress: Progress) -> Step:
        """Compute both networks' supervised losses plus lambda times the cross pseudo supervision."""
        labelled = batch["labelled"]
        z1, z2 = self.first(labelled.image), self.second(labelled.image)  # (B,C,h,w)
        supervised = self.supervised_loss(z1, labelled.mask) + self.supervised_loss(z2, labelled.mask)
        student, teacher, valid = self._mixed(batch) if self.config.cutmix else self._plain(batch, z1, z2)
        result = self.pixel_loss(student, teacher, size=valid.shape[1:], valid=valid, progress=progress)
        unsupervised = 2 * masked_mean(result.loss, valid)  # the sum of the two directions' means
        ramp = linear_ramp(progress.step, self.config.ramp_steps)
        return Step({"supervised": supervised, "unsupervised": self.weight * ramp * unsupervised}, result.stats)

    def _plain(self, batch: Mapping[str, Batch], z1: Tensor, z2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return students, teachers and valid pixels of both directions, on labelled and unlabelled images."""
        unlabelled = batch["unlabelled"]
        z1 = torch.cat([z1, self.first(unlabelled.image)])
        z2 = torch.cat([z2, self.second(unlabelled.image)])
        valid = torch.cat([batch["labelled"].valid, unlabelled.valid])
        return torch.cat([z1, z2]), torch.cat([z2, z1]).detach(), torch.cat([valid, valid])

    def _mixed(self, batch: Mapping[str, Batch]) -> tuple[Tensor, Mixed, Tensor]:
        """Like `_plain`, for mixed unlabelled images; the teachers see clean images and their logits are mixed."""
        a, b = batch["unlabelled"], batch["partner"]
        masks = box_masks(a.seed, a.size, boxes=self.config.boxes, area=self.config.box_area)
        mask = masks.to(a.image.device)  # (B,H,W), True: partner
        with torch.no_grad(), without_dropout(self.first, self.second):
            t1, t2 = ((network(a.image), network(b.image)) for network in (self.first, self.second))
        image, valid = paste(a.image, b.image, mask), paste(a.valid, b.valid, mask)
        students = torch.cat([self.first(image), self.second(image)])
        teachers = Mixed(torch.cat([t2[0], t1[0]]), torch.cat([t2[1], t1[1]]), torch.cat([mask, mask]))
        return students, teachers, torch.cat([valid, valid])
