"""Distillation: a student learns from the stored predictions of a trained network.

G. Hinton, O. Vinyals, J. Dean, "Distilling the knowledge in a neural network", NIPS Deep Learning Workshop 2014 (soft
labels). With strong views of the unlabelled images, this is the student step of Noisy Student: Q. Xie, M.-T. Luong, E.
Hovy, Q. V. Le, "Self-training with Noisy Student improves ImageNet classification", CVPR 2020.

The teacher predicts each unlabelled image once, at full size (`fuzzyseg distill`, `data.scores`), so training does not
run the teacher. Its log probabilities are scaled, cropped and flipped together with the image. The pixel loss turns
them into hard labels, soft labels or fuzzy sets, as it would a teacher's logits.

Unlike the papers, we use neither a factor of T^2 nor a temperature above 1; the teacher's probabilities use the
calibration from its model card.
"""

from collections.abc import Mapping
from typing import Any

import torch

from fuzzyseg.data.views import Batch, Stream, Weak, WeakStrong
from fuzzyseg.losses import masked_mean
from fuzzyseg.methods.base import Method, MethodConfig, Network, Progress, Step, setting


class DistillConfig(MethodConfig):
    """Settings of distillation."""

    unsupervised_weight: float = setting(1.0, "ours", "Weight of the loss on unlabelled images.", ge=0)
    strong: bool = setting(True, "Noisy Student", "Give the student strong views; false: the teacher's colours.")


class Distill(Method):
    """Training on a teacher's stored predictions for the unlabelled images."""

    Config = DistillConfig
    config: DistillConfig
    paper_loss = ("soft", {})
    stored_teacher = True
    paper = "Distillation, Hinton et al., 2014 (strong views: Noisy Student, Xie et al., CVPR 2020)"
    cost = "one network, 1 forward on a double batch"

    def __init__(self, network: Network, *rest: Any) -> None:
        super().__init__(network, *rest)
        self.student = network()
        view = WeakStrong(1) if self.config.strong else Weak()
        self.streams = {
            "labelled": Stream(Weak(), "labelled"),
            "unlabelled": Stream(view, "unlabelled", scores=True),
        }

    def forward(self, batch: Mapping[str, Batch], progress: Progress) -> Step:
        """Compute the supervised loss and the loss on the stored predictions."""
        labelled, unlabelled = batch["labelled"], batch["unlabelled"]
        teacher = unlabelled.scores
        assert teacher is not None
        image = unlabelled.strong[0] if self.config.strong else unlabelled.image
        z_l, z_u = self.student(torch.cat([labelled.image, image])).split([len(labelled.image), len(image)])
        valid = unlabelled.valid
        term = self.pixel_loss(z_u, teacher, size=valid.shape[1:], valid=valid, progress=progress)
        unsupervised = self.config.unsupervised_weight * masked_mean(term.loss, valid)
        return Step({"supervised": self.supervised_loss(z_l, labelled.mask), "unsupervised": unsupervised}, term.stats)
