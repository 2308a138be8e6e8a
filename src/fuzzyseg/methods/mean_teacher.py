"""Mean teachers are better role models: Weight-averaged consistency targets improve semi-supervised deep learning
results.

A. Tarvainen, H. Valpola, NeurIPS 2017. The teacher is the running average of the student's weights; the student is
pulled towards the teacher's soft prediction of the same images. The paper classifies images; segmentation has two
re-implementations that differ in almost everything, and both are offered as `preset`: `torchsemiseg` (TorchSemiSeg, by
the authors of CPS, which made the rows that the CPS and FPL papers quote) and `pixelssl` (PixelSSL). Both show student
and teacher one and the same tensor and so leave out the paper's input noise; PixelSSL's noise, off there, and the
paper's two-headed output are not implemented.

Where we leave their code, and why. The teacher moves after the step, for `forward` changes no parameter; TorchSemiSeg
moves it between the labelled and the unlabelled forward, so that its labelled targets are one update older. Labelled
and unlabelled images pass through the networks apart (PixelSSL: as one batch). Padding is left out of the consistency,
and void out of PixelSSL's supervised mean, which counts it. PixelSSL's ramp, 5 of 45 epochs, is a share of the run. The
teacher stays in training mode, its batch-norm statistics come from its own forwards. Those statistics are per process,
and so is the student's dropout; the teacher has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from fuzzyseg.data.views import Batch, Stream, Weak
from fuzzyseg.losses import masked_mean, squared_error
from fuzzyseg.methods.base import Facts, Method, MethodConfig, Network, PixelLossModule, Progress, Step, SupervisedLoss
from fuzzyseg.ops.ema import follow, teacher_of, warm_decay
from fuzzyseg.ops.module_mode import without_dropout
from fuzzyseg.ops.ramp import sigmoid_ramp

PRESETS: dict[str, dict[str, Any]] = {
    "torchsemiseg": {"of": "probabilities", "weight": 100.0, "labelled": True, "ramp": 0.0, "warm_up": False},
    "pixelssl": {"of": "logits", "weight": 1.0, "labelled": False, "ramp": 5 / 45, "warm_up": True},
}
"""What the two re-implementations chose (their configuration and script files)."""


class MeanTeacherConfig(MethodConfig):
    """Settings of mean teacher; None takes the preset's value."""

    preset: Literal["torchsemiseg", "pixelssl"] = Field(
        "torchsemiseg", description="Whose choices: torchsemiseg (the rows that the FPL paper quotes) or pixelssl."
    )
    decay: float = Field(0.99, ge=0, lt=1, description="Decay of the teacher's weights (both presets).")
    warm_up: bool | None = Field(
        None, description="Decay min(1 - 1/(step + 1), decay); None: false (torchsemiseg), true (pixelssl)."
    )
    of: Literal["probabilities", "logits"] | None = Field(
        None, description="Squared error of what; None: probabilities (torchsemiseg), logits (pixelssl)."
    )
    consistency_weight: float | None = Field(
        None, ge=0, description="Weight of the mean squared error over pixels and classes; None: 100 or 1 (presets)."
    )
    labelled: bool | None = Field(
        None,
        description="Consistency on labelled images too; None: true (torchsemiseg), false (pixelssl, other --loss).",
    )
    ramp: float | None = Field(
        None, ge=0, le=1, description="Share of the run over which the weight grows; None: 0 or 5/45 (presets)."
    )
    pixel_weight: float = Field(
        1.0, ge=0, description="Weight with --loss hard, soft, fuzzy; ours, the squared error's does not carry over."
    )
    predictor: Literal["student", "teacher"] = Field(
        "student", description="What is evaluated and saved: the student in torchsemiseg, pixelssl reports both."
    )


class MeanTeacher(Method):
    """A student and the average of its weights over time."""

    Config = MeanTeacherConfig
    paper_loss = None
    paper_only = ("of", "consistency_weight")
    pixel_only = ("pixel_weight",)
    paper = "Mean Teacher, Tarvainen and Valpola, NeurIPS 2017"
    fuzzy: ClassVar[Literal["native", "variant", "does not apply"]] = "variant"
    cost = "two networks, one trained; student 2 forwards, teacher 2 without gradient (1 if no labelled images)"
    keeps = "teacher: average of the student's weights, batch-norm statistics of its own"

    def __init__(
        self,
        network: Network,
        supervised_loss: SupervisedLoss,
        pixel_loss: PixelLossModule | None,
        config: MeanTeacherConfig,
        facts: Facts,
    ) -> None:
        super().__init__(network, supervised_loss, pixel_loss, config, facts)
        self.config: MeanTeacherConfig = config
        self.student = network()
        self.teacher = teacher_of(self.student)
        preset = PRESETS[config.preset]
        self.of = config.of or preset["of"]
        self.warm_up: bool = preset["warm_up"] if config.warm_up is None else config.warm_up
        self.ramp: float = preset["ramp"] if config.ramp is None else config.ramp
        squared = preset["weight"] if config.consistency_weight is None else config.consistency_weight
        self.weight: float = squared if pixel_loss is None else config.pixel_weight
        usual = preset["labelled"] and pixel_loss is None
        self.labelled: bool = usual if config.labelled is None else config.labelled
        self.streams = {"labelled": Stream(Weak(), "labelled"), "unlabelled": Stream(Weak(), "unlabelled")}

    def predictor(self) -> nn.Module:
        """The student, as in the numbers that are quoted, or the teacher."""
        return self.student if self.config.predictor == "student" else self.teacher

    def forward(self, batch: Mapping[str, Batch], progress: Progress) -> Step:
        """Cross entropy plus the ramped, weighted distance from the teacher."""
        labelled, unlabelled = batch["labelled"], batch["unlabelled"]
        assert labelled.mask is not None
        z_l, z_u = self.student(labelled.image), self.student(unlabelled.image)  # (B,C,h,w)
        with torch.no_grad(), without_dropout(self.teacher):
            t_l = self.teacher(labelled.image) if self.labelled else None
            t_u = self.teacher(unlabelled.image)
        supervised = self.supervised_loss(z_l, labelled.mask)
        if t_l is None:
            found, metrics = self._consistency(z_u, t_u, unlabelled.valid, progress)
        else:
            valid = torch.cat([labelled.valid, unlabelled.valid])
            found, metrics = self._consistency(torch.cat([z_l, z_u]), torch.cat([t_l, t_u]), valid, progress)
        ramp = sigmoid_ramp(progress.step, round(self.ramp * progress.total))
        return Step({"supervised": supervised, "unsupervised": self.weight * ramp * found}, metrics)

    def _consistency(self, z: Tensor, t: Tensor, valid: Tensor, progress: Progress) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean over valid pixels of the squared error, averaged over the classes, or of the pixel loss."""
        size = valid.shape[-2:]
        if self.pixel_loss is None:
            error = squared_error(z, t, size=size, valid=valid, of=self.of) / z.shape[1]
            return masked_mean(error, valid), {}
        result = self.pixel_loss(z, t, size=size, valid=valid, progress=progress)
        return masked_mean(result.loss, valid), result.stats

    def after_step(self, progress: Progress) -> None:
        """The teacher follows; at a warm-up's first step it becomes the student."""
        decay = warm_decay(progress.step, self.config.decay) if self.warm_up else self.config.decay
        follow(self.teacher, self.student, decay, buffers="own")
