"""Mean teachers are better role models: Weight-averaged consistency targets improve semi-supervised deep learning
results.

A. Tarvainen, H. Valpola, NeurIPS 2017. The teacher is an exponential moving average of the student's weights; the
student is trained to match the teacher's soft predictions for the same images. The paper is on image classification.
Two re-implementations for segmentation differ in most choices, and `preset` selects one: `torchsemiseg` (TorchSemiSeg,
by the authors of CPS, the source of the mean-teacher results in the CPS and FPL papers) or `pixelssl` (PixelSSL). Not
implemented: input noise (neither re-implementation uses it by default) and the paper's two-headed output.

Unlike these re-implementations, we exclude padding from the consistency loss and void pixels from the supervised mean
(PixelSSL includes them), and update the teacher after the step (TorchSemiSeg updates it between the labelled and the
unlabelled forward pass, so that its labelled targets are one update older). Labelled and unlabelled images go through
separate forward passes (PixelSSL uses one batch). PixelSSL's ramp, 5 of 45 epochs, is given as a fraction of the run.
The teacher is in training mode without dropout; its batch-norm statistics come from its own forward passes. Each
process computes its own batch-norm statistics and dropout masks.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import torch
from torch import nn

from fuzzyseg.data.views import Batch, Stream, Weak
from fuzzyseg.losses import masked_mean
from fuzzyseg.losses.consistency import mean_squared_error
from fuzzyseg.methods.base import Method, MethodConfig, Network, Progress, Step, setting, sigmoid_ramp
from fuzzyseg.ops.ema import follow, teacher_of, warm_decay
from fuzzyseg.ops.module_mode import without_dropout

PRESETS: dict[str, dict[str, Any]] = {
    "torchsemiseg": {"of": "probabilities", "weight": 100.0, "labelled": True, "ramp": 0.0, "warm_up": False},
    "pixelssl": {"of": "logits", "weight": 1.0, "labelled": False, "ramp": 5 / 45, "warm_up": True},
}
"""Settings of the two re-implementations, taken from their configuration files and scripts."""


class MeanTeacherConfig(MethodConfig):
    """Settings of mean teacher; None uses the preset's value."""

    preset: Literal["torchsemiseg", "pixelssl"] = setting(
        "torchsemiseg", "FPL paper's baseline", "Re-implementation whose defaults are used."
    )
    decay: float = setting(0.99, "both presets", "Decay of the teacher's weights.", ge=0, lt=1)
    warm_up: bool | None = setting(None, "preset", "Warm-up of the decay, 1 - 1/(step + 1); None: only for pixelssl.")
    of: Literal["probabilities", "logits"] | None = setting(
        None, "preset", "Input of the squared error; None: probabilities (torchsemiseg), logits (pixelssl)."
    )
    consistency_weight: float | None = setting(
        None, "preset", "Weight of the mean squared error over pixels and classes; None: 100 or 1.", ge=0
    )
    labelled: bool | None = setting(
        None, "preset", "Consistency on labelled images too; None: true (torchsemiseg), false (pixelssl, pixel losses)."
    )
    ramp: float | None = setting(None, "preset", "Ramp, as a fraction of the run; None: 0 or 5/45.", ge=0, le=1)
    pixel_weight: float = setting(1.0, "ours", "Weight of a pixel loss (hard, soft, fuzzy).", ge=0)
    predictor: Literal["student", "teacher"] = setting(
        "student", "torchsemiseg", "Network to evaluate and save (pixelssl reports both)."
    )


class MeanTeacher(Method):
    """Consistency with an exponential moving average of the student."""

    Config = MeanTeacherConfig
    config: MeanTeacherConfig
    paper_only = ("of", "consistency_weight")
    pixel_only = ("pixel_weight",)
    paper = "Mean Teacher, Tarvainen and Valpola, NeurIPS 2017"
    fuzzy = "variant"
    cost = "two networks, one trained; student 2 forwards, teacher 2 without gradient (1 without labelled images)"
    keeps = "teacher: average of the student's weights, with separate batch-norm statistics"

    def __init__(self, network: Network, *rest: Any) -> None:
        super().__init__(network, *rest)
        config, preset = self.config, PRESETS[self.config.preset]
        self.student = network()
        self.teacher = teacher_of(self.student)
        self.of = config.of or preset["of"]
        self.warm_up: bool = preset["warm_up"] if config.warm_up is None else config.warm_up
        self.ramp: float = preset["ramp"] if config.ramp is None else config.ramp
        squared = preset["weight"] if config.consistency_weight is None else config.consistency_weight
        self.weight: float = squared if self.pixel_loss is None else config.pixel_weight
        usual = preset["labelled"] and self.pixel_loss is None
        self.labelled: bool = usual if config.labelled is None else config.labelled
        self.streams = {"labelled": Stream(Weak(), "labelled"), "unlabelled": Stream(Weak(), "unlabelled")}

    def predictor(self) -> nn.Module:
        """Return the student or the teacher, depending on the setting `predictor`."""
        return self.student if self.config.predictor == "student" else self.teacher

    def forward(self, batch: Mapping[str, Batch], progress: Progress) -> Step:
        """Compute the supervised loss and the weighted, ramped consistency loss between student and teacher."""
        labelled, unlabelled = batch["labelled"], batch["unlabelled"]
        z_l, z_u = self.student(labelled.image), self.student(unlabelled.image)  # (B,C,h,w)
        with torch.no_grad(), without_dropout(self.teacher):
            t_l = self.teacher(labelled.image) if self.labelled else None
            t_u = self.teacher(unlabelled.image)
        supervised = self.supervised_loss(z_l, labelled.mask)
        z, t, valid = z_u, t_u, unlabelled.valid
        if t_l is not None:
            z, t, valid = (torch.cat(both) for both in ((z_l, z), (t_l, t), (labelled.valid, valid)))
        loss, metrics = self.unlabelled_map(partial(mean_squared_error, of=self.of), z, t, valid, progress)
        ramp = sigmoid_ramp(progress.step, round(self.ramp * progress.total))
        unsupervised = self.weight * ramp * masked_mean(loss, valid)
        return Step({"supervised": supervised, "unsupervised": unsupervised}, metrics)

    def after_step(self, progress: Progress) -> None:
        """Update the teacher's weights by EMA; after the first step of a warm-up they equal the student's."""
        decay = warm_decay(progress.step, self.config.decay) if self.warm_up else self.config.decay
        follow(self.teacher, self.student, decay, buffers="own")
