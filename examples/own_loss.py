"""A custom pseudo-label loss with settings: focal cross entropy, which is larger where the student is uncertain.

    python examples/own_loss.py
    fuzzyseg train --import examples/own_loss.py --loss focal loss.options.gamma=1 --data photos --out runs/own

A loss takes the logits of the student (B,C,h,w) and of the teacher (a tensor or `Mixed`), and returns a map (B,H,W) at
`size`. If it has a parameter `threshold`, it receives T from `loss.threshold`.
"""

from __future__ import annotations

import torch
from pydantic import BaseModel, Field
from torch.nn.functional import cross_entropy

import fuzzyseg
from fuzzyseg.data.datasets.synthetic import write_demo
from fuzzyseg.losses import PixelLoss
from fuzzyseg.losses.pseudo_label import both_sides


class FocalOptions(BaseModel, extra="forbid"):
    """Settings of the loss, given as `loss.options`."""

    gamma: float = Field(2.0, ge=0, description="Exponent of the focal factor; 0: plain cross entropy.")


def focal(student_logits, teacher, *, size, valid, options: FocalOptions, **_) -> PixelLoss:
    """Compute focal cross entropy against the teacher's most probable class."""
    student, target = both_sides(student_logits, teacher, size, valid)  # (B,C,H,W), the teacher detached
    error = cross_entropy(student, target.argmax(1), reduction="none")
    factor = (1 - torch.exp(-error)) ** options.gamma
    return PixelLoss(torch.where(valid > 0, factor * error, 0), stats={"focal_factor": factor.detach().mean()})


LOSSES = {"focal": focal}

if __name__ == "__main__":
    write_demo("photos", train=12, val=4, size=(64, 64))
    result = fuzzyseg.train(
        {
            "data": {"root": "photos", "labelled": "4"},
            "network": {"arch": "Unet", "encoder": "resnet18", "weights": "none"},
            "loss": {"options": {"gamma": 1.0}},
            "train": {"steps": 3, "batch": 2, "crop": 64, "workers": 0, "device": "cpu"},
            "out": "runs/own_loss",
        },
        loss=focal,
    )
    print("mean IoU:", result.result["last"]["miou"])
