"""Semi-Supervised Semantic Segmentation via Adaptive Equalization Learning (AEL).

H. Hu, F. Wei, H. Hu, Q. Ye, J. Cui, L. Wang, NeurIPS 2021. A mean teacher that looks after the classes it does badly
on. A bank holds how sure the student is of each class on labelled pixels, and steers: which classes of another
labelled image are pasted into a labelled one (adaptive copy-paste); which image, and which part of it, is pasted into
an unlabelled one (adaptive CutMix; a second bank holds which images show which class); which pixels teach (adaptive
equalisation sampling, by the student's class). Pixels weigh by the teacher's confidence (dynamic re-weighting).

The defaults are the paper's, but that labelled images teach by consistency too, as in the authors' code
(`labelled_too`). What their code has besides stands in the help texts of the settings.

Where we leave the authors' code, and why. Padding teaches nothing (theirs has the label 0: `padding=zero`). Losses are
not divided by the number of processes. All classes of a batch are drawn image by image from the sample's seed, and so
is the sampling of pixels: they do not depend on the number of processes. The bank moves after the step, over all
processes and micro-batches, not in its midst; it starts as the mean of what was seen so far, as the teacher does, where
theirs starts at random. Steered draws follow the banks with a delay of 16 steps, for images are read ahead. Every
unlabelled image is used (theirs loads two and keeps one). The sources of a paste are scaled as all images are (theirs
.1 to 2). Not implemented: the auxiliary head on the third stage (weight .4). Per process: batch norm's statistics,
dropout, and OHEM's ranking and the scale of `balance` where they are on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from fuzzyseg.data.views import Batch, Stream, Weak
from fuzzyseg.losses import PIXEL_LOSSES, masked_mean, under_mask
from fuzzyseg.losses.reduction import local_mean
from fuzzyseg.methods.base import Facts, Method, MethodConfig, Network, PixelLossModule, Progress, Step, SupervisedLoss
from fuzzyseg.ops.class_banks import area_of_classes, class_confidence, moved, noted
from fuzzyseg.ops.ema import follow, teacher_of, warm_decay
from fuzzyseg.ops.mix import Mixed, box_masks, class_masks, component_masks, paste
from fuzzyseg.ops.module_mode import without_dropout
from fuzzyseg.ops.resize import resize_logits
from fuzzyseg.ops.sample_rng import uniform


class AELConfig(MethodConfig):
    """Settings of AEL."""

    unsupervised_weight: float = Field(1.0, ge=0, description="alpha (the paper's; .5 to 2 in its ablation).")
    labelled_too: bool = Field(True, description="Labelled images take part in the consistency term (authors' code).")
    decay: float = Field(0.99, ge=0, lt=1, description="Of the teacher, after a warm-up 1 - 1/(step + 1) (the code).")
    gamma: float = Field(2.0, ge=0, description="Dynamic re-weighting: power of the confidence (the paper's); 0: none.")
    beta: float = Field(1.0, ge=0, description="Equalisation sampling: power of the rate (authors' code); 0: none.")
    normalise: Literal["image", "batch"] = Field(
        "image", description="Weights sum to 1 over each image (paper, Eq. 12) or over the batch (authors' code)."
    )
    threshold: float = Field(
        0.0, ge=0, le=1, description="Confidence from which on a pixel teaches: 0 (paper), .7 (authors' code, VOC)."
    )
    confidence: Literal["keep", "drop"] | None = Field(
        None,
        description="The threshold: keep or drop it (ours); None: keep with the hard loss, else drop. Re-weighting and "
        "sampling stay either way. From .95 on, for T up to .95, FPL is cross entropy but for a weight of .986 to 1.",
    )
    memory: float = Field(0.999, ge=0, lt=1, description="tau of the confidence bank, after a warm-up (the paper's).")
    absent: Literal["decay", "stay"] = Field(
        "decay", description="A class absent from a step: counts as confidence 0 (authors' code), or stays as it is."
    )
    copy_paste: bool = Field(True, description="Adaptive copy-paste of labelled classes (paper).")
    copy_paste_classes: int = Field(3, ge=1, description="Classes drawn for each image (paper: 3; code: 1 on VOC).")
    copy_paste_probability: float = Field(0.5, ge=0, le=1, description="Share of images with a paste (authors' code).")
    copy_paste_power: float = Field(
        1.0, gt=0, description="Classes are drawn by softmax((1 - confidence)^power): 1 (paper), .5 (authors' code)."
    )
    copy_paste_exclude: tuple[int, ...] = Field(
        (), description="Classes never pasted (authors' code: 0, 1, 2, 8, 10, the large ones of Cityscapes)."
    )
    adaptive_mix: bool = Field(True, description="Adaptive CutMix (paper); false: any image, half the area.")
    mix_area: float = Field(
        0.005, ge=0, lt=1, description="Least share of the image of a part to paste (code: VOC .03)."
    )
    bank_area: float = Field(
        0.01, ge=0, lt=1, description="Least share of the image that a class must have to be noted (code: VOC .03)."
    )
    padding: Literal["ignore", "zero"] = Field(
        "ignore", description="ignore: teaches nothing (ours); zero: has the label 0 and teaches too (authors' code)."
    )


class AEL(Method):
    """A mean teacher steered by the confidence in each class."""

    Config = AELConfig
    paper_loss = ("hard", {})
    paper = "AEL, Hu et al., NeurIPS 2021"
    cost = "two networks: 2 forwards with gradient, 3 without; parts of the pasted image found on the CPU"
    keeps = "the average of the weights; the confidence in each class (C); which unlabelled image shows which (C, N)"

    class_confidence: Tensor
    seen: Tensor
    shown: Tensor

    def __init__(
        self,
        network: Network,
        supervised_loss: SupervisedLoss,
        pixel_loss: PixelLossModule | None,
        config: AELConfig,
        facts: Facts,
    ) -> None:
        super().__init__(network, supervised_loss, pixel_loss, config, facts)
        self.config: AELConfig = config
        if not set(range(facts.classes)) - set(config.copy_paste_exclude):
            raise ValueError(
                f"method.copy_paste_exclude: found all {facts.classes} classes; leave one, or set copy_paste=false"
            )
        self.student = network()
        self.teacher = teacher_of(self.student)
        usual = "keep" if getattr(pixel_loss, "function", None) is PIXEL_LOSSES["hard"] else "drop"
        self.keep = config.threshold > 0 and (config.confidence or usual) == "keep"
        self.register_buffer("class_confidence", torch.zeros(facts.classes))
        self.register_buffer("seen", torch.zeros(2, facts.classes))  # of this step: see `ops.confidence`
        self.register_buffer("shown", torch.zeros(facts.classes, facts.images.get("unlabelled", 0), dtype=torch.bool))
        self.streams = {
            "labelled": Stream(Weak(), "labelled"),
            "unlabelled": Stream(Weak(), "unlabelled"),
            "partner": Stream(Weak(), "unlabelled", partner="unlabelled"),
        }
        if config.copy_paste:
            self.streams["source"] = Stream(Weak(), "labelled", partner="labelled")

    def notes(self, size: tuple[int, int]) -> list[str]:
        """That a loss over sets is cross entropy under the mask."""
        return under_mask(self.pixel_loss, self.config.threshold) if self.keep else []

    def predictor(self) -> nn.Module:
        """The teacher, as in the authors' evaluation."""
        return self.teacher

    def forward(self, batch: Mapping[str, Batch], progress: Progress) -> Step:
        """Supervised loss on the pasted labelled images plus alpha times consistency on them and on the mixed ones."""
        if self.config.padding == "zero":
            batch = {name: _padding_taught(samples) for name, samples in batch.items()}
        labelled, a, b = batch["labelled"], batch["unlabelled"], batch["partner"]
        image, mask, valid = self._copy_paste(labelled, batch.get("source"))
        z_l = self.student(image)  # (B,C,h,w)
        self.seen += class_confidence(resize_logits(z_l.detach(), labelled.size), mask)
        losses = {"supervised": self.supervised_loss(z_l, mask)}
        weight = self.config.unsupervised_weight
        with torch.no_grad(), without_dropout(self.teacher):  # batch statistics, of images that are not mixed
            t_a, t_b = self.teacher(torch.cat([a.image, b.image])).chunk(2)
            mixed = self._mix_mask(t_a, t_b, a, b)  # (B,H,W), True: partner
        if self.config.labelled_too:
            with torch.no_grad(), without_dropout(self.teacher):
                t_l = self.teacher(image)
            losses["labelled_consistency"] = weight * self._term(z_l, t_l, valid, labelled.seed, progress)[0]
        z_u = self.student(paste(a.image, b.image, mixed))
        unsupervised, metrics = self._term(
            z_u, Mixed(t_a, t_b, mixed), paste(a.valid, b.valid, mixed), a.seed, progress
        )
        losses["unsupervised"] = weight * unsupervised
        return Step(losses, {**metrics, "class_confidence": self.class_confidence.clone()})

    def _copy_paste(self, labelled: Batch, source: Batch | None) -> tuple[Tensor, Tensor, Tensor]:
        """Adaptive copy-paste: image, mask and validity with the drawn classes of another image pasted over them."""
        assert labelled.mask is not None
        if source is None:
            return labelled.image, labelled.mask, labelled.valid
        assert source.mask is not None
        config = self.config
        wish = (1 - self.class_confidence).clamp(min=0) ** config.copy_paste_power
        never = torch.zeros(len(wish), dtype=torch.bool)
        never[[c for c in config.copy_paste_exclude if c < len(wish)]] = True
        reached = torch.softmax(wish.masked_fill(never.to(wish.device), -torch.inf), 0).cumsum(0)
        drawn = uniform(labelled.seed, (1 + config.copy_paste_classes,), purpose=2).to(wish.device)
        # with replacement: the first class up to which the probabilities sum to more than the number drawn
        classes = torch.searchsorted(reached / reached[-1], drawn[:, 1:].contiguous(), right=True)  # (B,K)
        over = class_masks(source.mask, classes) & (drawn[:, 0] < config.copy_paste_probability)[:, None, None]
        return (
            paste(labelled.image, source.image, over),
            paste(labelled.mask, source.mask, over),
            paste(labelled.valid, source.valid, over),
        )

    def _mix_mask(self, t_a: Tensor, t_b: Tensor, a: Batch, b: Batch) -> Tensor:
        """Adaptive CutMix: the box of a part of the partner that is of the class it was drawn for, else any box.

        Notes which classes the images show. (B,H,W) bool.
        """
        mask = box_masks(a.seed, a.size, boxes=1, area=(0.5, 0.5))
        if self.config.adaptive_mix:
            labels = [
                torch.where(s.valid, resize_logits(t, s.size).argmax(1), -1) for t, s in ((t_a, a), (t_b, b))
            ]  # (B,H,W) each
            parts, found = component_masks(labels[1], b.drawn_for, a.seed, smallest=self.config.mix_area)
            mask = torch.where(found[:, None, None], parts, mask)
            least = self.config.bank_area * a.size[0] * a.size[1]
            shows = area_of_classes(torch.cat(labels), len(self.shown)) >= max(least, 1)
            self.shown.copy_(noted(self.shown, torch.cat([a.index, b.index]), shows))
        return mask.to(a.image.device)

    def _term(
        self, student: Tensor, teacher: Tensor | Mixed, valid: Tensor, seeds: Tensor, progress: Progress
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Consistency: the pixel loss averaged by confidence^gamma over the sampled pixels; and what is logged."""
        assert self.pixel_loss is not None
        size = (int(valid.shape[-2]), int(valid.shape[-1]))
        result = self.pixel_loss(student, teacher, size=size, valid=valid, progress=progress, maps=True)
        sampled = self._sampled(student.detach(), size, seeds) & valid
        weight = torch.where(sampled, result.confidence**self.config.gamma, 0)  # (B,H,W)
        if self.config.normalise == "image":
            total = weight.sum((1, 2), keepdim=True)
            weight = weight / torch.where(total > 0, total, 1)
        loss = result.loss
        if self.keep:  # what is below counts as 0, and its weight still in the mean, as in the authors' code
            loss = torch.where(result.confidence >= self.config.threshold, loss, 0)
        return masked_mean(loss, weight), {**result.stats, "sampled": local_mean(sampled.float(), valid)}

    def _sampled(self, student: Tensor, size: tuple[int, int], seeds: Tensor) -> Tensor:
        """Adaptive equalisation sampling: pixels are kept the more often the less sure the student's class is.

        (B,H,W) bool; the rate is ((1 - c_k) / max_j (1 - c_j))^beta for pixels that the student takes for class k.
        """
        unsure = (1 - self.class_confidence).clamp(min=0)
        rate = (unsure / unsure.max().clamp(min=1e-12)) ** self.config.beta  # (C,)
        kept = uniform(seeds, size, purpose=3).to(student.device)
        return kept < rate[resize_logits(student, size).argmax(1)]

    def after_step(self, progress: Progress) -> None:
        """The teacher follows, weights alone; the confidence bank takes in what the step has seen."""
        follow(self.teacher, self.student, warm_decay(progress.step, self.config.decay), buffers="own")
        decay = warm_decay(progress.step, self.config.memory)
        absent = self.config.absent == "decay"
        self.class_confidence.copy_(moved(self.class_confidence, self.seen, decay, absent=absent))
        self.seen.zero_()

    def draw_weights(self, stream: str) -> Tensor | None:
        """Partners: a class by softmax(1 - confidence), then evenly an image that shows it, any if none is known to."""
        if stream != "partner" or not self.config.adaptive_mix:
            return None
        shown = self.shown.float()
        known = shown.sum(1, keepdim=True)
        images = torch.where(known > 0, shown / known.clamp(min=1), 1 / shown.shape[1])
        return torch.softmax(1 - self.class_confidence, 0).unsqueeze(1) * images


def _padding_taught(samples: Batch) -> Batch:
    """Padding as pixels like any other, of class 0 where there are masks: as published, on purpose or not."""
    mask = None if samples.mask is None else samples.mask.masked_fill(~samples.valid, 0)
    return replace(samples, mask=mask, valid=torch.ones_like(samples.valid))
