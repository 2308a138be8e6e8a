"""FixMatch: Simplifying semi-supervised learning with consistency and confidence, for segmentation.

K. Sohn et al., NeurIPS 2020. We implement its segmentation form, a baseline in L. Yang, L. Qi, L. Feng, W. Zhang, Y.
Shi, "Revisiting Weak-to-Strong Consistency in Semi-Supervised Semantic Segmentation", CVPR 2023 (`teacher: self`), and
in L. Yang, Z. Zhao, H. Zhao, "UniMatch V2", arXiv 2410.10777 (`teacher: ema`). Confident predictions for the weak view
supervise the strong view of the same crop, into which a rectangle from another image is pasted.

`self`: the network is its own teacher. The crop's labels come from the training-mode forward pass that also includes
the labelled images; the labels of the pasted image come from an evaluation-mode pass, which does not update batch norm.
`ema`: an EMA of the network, in evaluation mode, labels both images and is used for evaluation.

Unlike the authors' code, we paste from another image: UniMatch's code pastes another crop of the same image, because
two samplers share a seed, and V2's reverses the batch, so that pairs depend on the number of processes. Strong views
use our jitter and blur (`data/views.py`), and padding has the mean colour instead of black. Each process computes its
own batch-norm statistics and dropout masks.
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fuzzyseg.data.views import Batch, WeakStrong
from fuzzyseg.losses import CONFIDENCE, Confidence, ConfidentPixels
from fuzzyseg.methods.base import Method, MethodConfig, Network, Progress, RectangleArea, Step, mixing_streams, setting
from fuzzyseg.ops.ema import follow, teacher_of, warm_decay
from fuzzyseg.ops.mix import Mixed, paste, rectangle_masks
from fuzzyseg.ops.module_mode import evaluating


class FixMatchConfig(MethodConfig):
    """Settings of FixMatch."""

    teacher: Literal["self", "ema"] = setting(
        "self", "Yang et al., CVPR 2023", "Teacher. self: the network; ema: its average, as in UniMatch V2's code."
    )
    threshold: float = setting(0.95, "authors' code", "Minimum probability of a confident pixel.")
    confidence: Confidence = setting(None, "ours", CONFIDENCE)
    unsupervised_weight: float = setting(1.0, "authors' code", "Weight of the strong view's loss.", ge=0)
    decay: float = setting(0.996, "authors' code", "Decay of the average, after warm-up 1 - 1/(step + 1).", ge=0, lt=1)
    cutmix_probability: float = setting(0.5, "authors' code", "Fraction of images with a rectangle.", ge=0, le=1)
    box_area: RectangleArea = setting((0.02, 0.4), "authors' code", "Range of the rectangle's fraction of the image.")


class FixMatch(Method):
    """Confident predictions of the weak view supervise the strong view."""

    Config = FixMatchConfig
    config: FixMatchConfig
    paper_loss = ("hard", {})
    paper = "FixMatch, Sohn et al., NeurIPS 2020 (segmentation: Yang et al., CVPR 2023)"
    cost = "one network, 3 forwards, one of them on a double batch, and 1 without gradient (ema: two networks)"
    keeps = "nothing (ema: the average of the weights)"

    def __init__(self, network: Network, *rest: Any) -> None:
        super().__init__(network, *rest)
        self.student = network()
        self.teacher = teacher_of(self.student) if self.config.teacher == "ema" else None
        self.shares_forward = self.teacher is None
        self.confident = ConfidentPixels(self.config.confidence, self.config.threshold, self.pixel_loss)
        self.streams = mixing_streams(WeakStrong(1))

    def predictor(self) -> nn.Module:
        """Return the EMA network if there is one, otherwise the student."""
        return self.student if self.teacher is None else self.teacher

    def forward(self, batch: Mapping[str, Batch], progress: Progress) -> Step:
        """Compute half the sum of the supervised loss and the strong view's loss."""
        labelled, a, b = batch["labelled"], batch["unlabelled"], batch["partner"]
        area, chance = self.config.box_area, self.config.cutmix_probability
        (drawn,) = rectangle_masks(a.seed, a.size, probability=chance, area=area)
        mask = drawn.to(a.image.device)  # (B,H,W), True: partner
        strong = paste(a.strong[0], b.strong[0], mask)
        z_l, z_s, teacher = self._logits(labelled.image, strong, a.image, b.image, mask)
        valid = paste(a.valid, b.valid, mask)
        mean, metrics = self.confident(self.pixel_loss, z_s, teacher, valid, progress)
        unsupervised = self.config.unsupervised_weight * mean
        supervised = self.supervised_loss(z_l, labelled.mask)
        return Step({"supervised": supervised / 2, "unsupervised": unsupervised / 2}, metrics)

    def _logits(
        self, labelled: Tensor, strong: Tensor, weak: Tensor, partner: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, Mixed]:
        """Return logits (B,C,h,w) of labelled and strong images, and the teacher's mixed logits of the weak images."""
        count = len(labelled)
        if self.teacher is not None:
            with torch.no_grad(), evaluating(self.teacher):
                teacher = Mixed(self.teacher(weak), self.teacher(partner), mask)
            both = self.student(torch.cat([labelled, strong]))
            return both[:count], both[count:], teacher
        with torch.no_grad(), evaluating(self.student):
            pasted = self.student(partner)
        both = self.student(torch.cat([labelled, weak]))  # batch norm sees the strong images separately
        return both[:count], self.student(strong), Mixed(both[count:].detach(), pasted, mask)

    def after_step(self, progress: Progress) -> None:
        """Update the EMA network's weights and buffers; after the first step it equals the student."""
        if self.teacher is not None:
            follow(self.teacher, self.student, warm_decay(progress.step, self.config.decay), buffers="average")
