"""A custom method: self-training, where the prediction for the weak view is the pseudo label for the strong view.

python examples/own_method.py
fuzzyseg train --import examples/own_method.py --method self_training --data photos --out runs/own
"""

from __future__ import annotations

import torch
from pydantic import Field

import fuzzyseg
from fuzzyseg.data.datasets.synthetic import write_demo
from fuzzyseg.data.views import Stream, Weak, WeakStrong
from fuzzyseg.losses import masked_mean
from fuzzyseg.methods import Method, MethodConfig, Step


class SelfTrainingConfig(MethodConfig):
    """Settings of the section `method`."""

    weight: float = Field(1.0, ge=0, description="Weight of the loss on unlabelled images.")


class SelfTraining(Method):
    """Self-training of a single network, with the weak view as teacher and the strong view as student."""

    Config = SelfTrainingConfig
    paper_loss = ("hard", {})  # used by `--loss paper`; `--loss fuzzy` replaces it
    paper = "self-training, an example"
    cost = "one network; 3 forwards, one of them without gradient"

    def __init__(self, network, supervised_loss, pixel_loss, config, facts):
        super().__init__(network, supervised_loss, pixel_loss, config, facts)
        self.student = network()
        self.streams = {"labelled": Stream(Weak(), "labelled"), "unlabelled": Stream(WeakStrong(), "unlabelled")}

    def forward(self, batch, progress):
        """Compute the losses of one step."""
        labelled, unlabelled = batch["labelled"], batch["unlabelled"]
        supervised = self.supervised_loss(self.student(labelled.image), labelled.mask)
        with torch.no_grad():
            teacher = self.student(unlabelled.image)  # (B,C,h,w)
        student = self.student(unlabelled.strong[0])
        found = self.pixel_loss(student, teacher, size=unlabelled.size, valid=unlabelled.valid, progress=progress)
        unsupervised = masked_mean(found.loss, unlabelled.valid)
        return Step({"supervised": supervised, "unsupervised": self.config.weight * unsupervised}, found.stats)


METHODS = {"self_training": SelfTraining}

if __name__ == "__main__":
    write_demo("photos", train=12, val=4, size=(64, 64))
    result = fuzzyseg.train(
        {
            "data": {"root": "photos", "labelled": "4"},
            "network": {"arch": "Unet", "encoder": "resnet18", "weights": "none"},
            "method": {"weight": 0.5},
            "loss": {"name": "fuzzy"},
            "train": {"steps": 3, "batch": 2, "crop": 64, "workers": 0, "device": "cpu"},
            "out": "runs/own_method",
        },
        method=SelfTraining,
    )
    print("mean IoU:", result.result["last"]["miou"])
