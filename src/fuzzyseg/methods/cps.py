"""Semi-Supervised Semantic Segmentation with Cross Pseudo Supervision (CPS).

X. Chen, Y. Yuan, G. Zeng, J. Wang, CVPR 2021. Two networks with different initial weights see the same image, and each
learns from the other's pseudo labels. With the fuzzy loss (Qiao et al., CVPR 2023) instead of the hard one, this is
that paper's FPL+CPS.

With CutMix (the default), a box mask mixes two unlabelled images. The teachers see the two clean images, use batch
statistics but no dropout, and receive no gradient; their logits are mixed with the same mask. Labelled images are then
excluded from the unsupervised loss, as in the authors' code; without CutMix they are included, as in the paper.

Both directions are stacked along the batch axis and go through one call of the pixel loss, so that `loss.balance`
computes a single factor for both, as in the released FPL code.

Unlike the authors' code, we mix two different images (they mix two crops of one file, because two samplers share a
seed), do not divide losses by the number of processes, never start a crop outside the image, and exclude padding from
the losses. Each process computes its own batch-norm statistics.
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
    """Cross pseudo supervision, with or without CutMix."""

    Config = CPSConfig
    config: CPSConfig
    learners: ClassVar[int] = 2
    paper_loss = ("hard", {})
    paper = "CPS, Chen et al., CVPR 2021 (CutMix: French et al., BMVC 2020)"
    cost = "two networks, each with 2 forwards with gradient (with CutMix also 2 without)"

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
        """Return the first network, as in the authors' inference code."""
        return self.first

    def pair(self) -> tuple[nn.Module, nn.Module]:
        """Return (student, teacher) for `analyse`: the direction in which the first network learns."""
        return self.first, self.second

    def forward(self, batch: Mapping[str, Batch], progress: Progress) -> Step:
        """Compute both networks' supervised losses and lambda times the cross-pseudo-supervision loss."""
        labelled = batch["labelled"]
        z1, z2 = self.first(labelled.image), self.second(labelled.image)  # (B,C,h,w)
        supervised = self.supervised_loss(z1, labelled.mask) + self.supervised_loss(z2, labelled.mask)
        student, teacher, valid = self._mixed(batch) if self.config.cutmix else self._plain(batch, z1, z2)
        result = self.pixel_loss(student, teacher, size=valid.shape[1:], valid=valid, progress=progress)
        unsupervised = 2 * masked_mean(result.loss, valid)  # the sum of the two directions' means
        ramp = linear_ramp(progress.step, self.config.ramp_steps)
        return Step({"supervised": supervised, "unsupervised": self.weight * ramp * unsupervised}, result.stats)

    def _plain(self, batch: Mapping[str, Batch], z1: Tensor, z2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return student logits, teacher logits and valid pixels for both directions, on all images."""
        unlabelled = batch["unlabelled"]
        z1 = torch.cat([z1, self.first(unlabelled.image)])
        z2 = torch.cat([z2, self.second(unlabelled.image)])
        valid = torch.cat([batch["labelled"].valid, unlabelled.valid])
        return torch.cat([z1, z2]), torch.cat([z2, z1]).detach(), torch.cat([valid, valid])

    def _mixed(self, batch: Mapping[str, Batch]) -> tuple[Tensor, Mixed, Tensor]:
        """Mix the unlabelled images, and the teachers' logits for the clean ones; return values like `_plain`."""
        a, b = batch["unlabelled"], batch["partner"]
        masks = box_masks(a.seed, a.size, boxes=self.config.boxes, area=self.config.box_area)
        mask = masks.to(a.image.device)  # (B,H,W), True: partner
        with torch.no_grad(), without_dropout(self.first, self.second):
            t1, t2 = ((network(a.image), network(b.image)) for network in (self.first, self.second))
        image, valid = paste(a.image, b.image, mask), paste(a.valid, b.valid, mask)
        students = torch.cat([self.first(image), self.second(image)])
        teachers = Mixed(torch.cat([t2[0], t1[0]]), torch.cat([t2[1], t1[1]]), torch.cat([mask, mask]))
        return students, teachers, torch.cat([valid, valid])
