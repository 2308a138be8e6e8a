"""Semi-Supervised Semantic Segmentation via Adaptive Equalization Learning (AEL).

H. Hu, F. Wei, H. Hu, Q. Ye, J. Cui, L. Wang, NeurIPS 2021. AEL is a mean teacher that favours poorly performing
classes. A bank stores the student's confidence in each class on labelled pixels. It controls which classes of another
labelled image are pasted into a labelled one (adaptive copy-paste); which image, and which part of it, is pasted into
an unlabelled one (adaptive CutMix, for which a second bank stores the classes that each image contains); and which
pixels are trained on (adaptive equalisation sampling, by the class that the student predicts). Pixels are weighted by
the teacher's confidence (dynamic re-weighting).

The defaults are the paper's, except that labelled images also have a consistency loss, as in the authors' code
(`labelled_too`). The auxiliary head on the third stage (weight 0.4) is not implemented.

Unlike the authors' code, we exclude padding from the losses (the authors label it 0: `padding=zero`) and do not divide
losses by the number of processes. Pasted classes and sampled pixels depend on the sample's seed, not on the number of
processes. The confidence bank is updated after the step, over all processes and micro-batches; like the teacher, it
starts as a plain average of the values so far, whereas the authors initialise it randomly. Sampling lags the banks by
16 steps, because images are prefetched. We use all unlabelled images, whereas the authors load two and keep one, and
scale the source images of copy-paste like all others, whereas they use scales of 0.1 to 2. Each process computes its
own batch-norm statistics and dropout masks and, if used, OHEM's ranking and the scale of `loss.balance`.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fuzzyseg.data.views import Batch, Stream, Weak
from fuzzyseg.losses import PIXEL_LOSSES, masked_mean, under_mask
from fuzzyseg.losses.base import local_mean
from fuzzyseg.methods.ael.class_banks import area_of_classes, class_confidence, moved, noted
from fuzzyseg.methods.ael.masks import class_masks, component_masks
from fuzzyseg.methods.base import Method, MethodConfig, Network, Progress, Step, mixing_streams, setting
from fuzzyseg.ops.ema import follow, teacher_of, warm_decay
from fuzzyseg.ops.mix import Mixed, box_masks, paste
from fuzzyseg.ops.module_mode import without_dropout
from fuzzyseg.ops.resize import resize_logits
from fuzzyseg.ops.sample_rng import uniform


class AELConfig(MethodConfig):
    """Settings of AEL."""

    unsupervised_weight: float = setting(1.0, "paper", "alpha: weight of the loss (paper: 0.5 to 2).", ge=0)
    labelled_too: bool = setting(True, "authors' code", "Also apply the consistency term to labelled images.")
    decay: float = setting(0.99, "authors' code", "Decay of the teacher, after a warm-up 1 - 1/(step + 1).", ge=0, lt=1)
    gamma: float = setting(2.0, "paper", "Dynamic re-weighting: power of the confidence; 0: off.", ge=0)
    beta: float = setting(1.0, "authors' code", "Equalisation sampling: power of the rate; 0: off.", ge=0)
    normalise: Literal["image", "batch"] = setting(
        "image", "paper, Eq. 12", "Weights sum to 1 over each image, or over the batch as in the authors' code (batch)."
    )
    threshold: float = setting(0.0, "paper", "Minimum confidence of a trained pixel (code: 0.7 on VOC).", ge=0, le=1)
    confidence: Literal["keep", "drop"] | None = setting(
        None,
        "ours",
        "Keep or drop the threshold; None: keep with the hard loss, else drop. Re-weighting and sampling are not "
        "affected. From 0.95, for T up to 0.95, FPL is cross entropy except for a weight of 0.986 to 1.",
    )
    memory: float = setting(0.999, "paper", "tau: decay of the confidence bank, after a warm-up.", ge=0, lt=1)
    absent: Literal["decay", "stay"] = setting(
        "decay", "authors' code", "A class absent from a step counts as 0 (decay) or is unchanged (stay)."
    )
    copy_paste: bool = setting(True, "paper", "Adaptive copy-paste of labelled classes.")
    copy_paste_classes: int = setting(3, "paper", "Classes drawn for each image (1 in the authors' code on VOC).", ge=1)
    copy_paste_probability: float = setting(0.5, "authors' code", "Fraction of images with pasted classes.", ge=0, le=1)
    copy_paste_power: float = setting(1.0, "paper", "Classes are drawn by softmax((1 - confidence)^power).", gt=0)
    copy_paste_exclude: tuple[int, ...] = setting(
        (), "paper", "Classes that are never pasted (authors' code: 0, 1, 2, 8, 10, the large classes of Cityscapes)."
    )
    adaptive_mix: bool = setting(True, "paper", "Adaptive CutMix; false: any image, half its area.")
    mix_area: float = setting(0.005, "authors' code, Cityscapes", "Minimum area of a paste (VOC: 0.03).", ge=0, lt=1)
    bank_area: float = setting(0.01, "authors' code, Cityscapes", "Minimum area of a class (VOC: 0.03).", ge=0, lt=1)
    padding: Literal["ignore", "zero"] = setting(
        "ignore", "ours", "Padded pixels. ignore: not used; zero: used with label 0, as in the authors' code."
    )


class AEL(Method):
    """A mean teacher guided by the student's confidence in each class."""

    Config = AELConfig
    config: AELConfig
    paper_loss = ("hard", {})
    paper = "AEL, Hu et al., NeurIPS 2021"
    cost = "two networks: 2 forwards with gradient, 3 without; parts of the pasted image computed on the CPU"
    keeps = "average of the weights; confidence of each class (C); which unlabelled images contain which class (C, N)"

    class_confidence: Tensor
    seen: Tensor
    shown: Tensor

    def __init__(self, network: Network, *rest: Any) -> None:
        super().__init__(network, *rest)
        config, classes = self.config, self.facts.classes
        if not set(range(classes)) - set(config.copy_paste_exclude):
            raise ValueError(f"method.copy_paste_exclude: found all {classes} classes; leave one, or copy_paste=false")
        self.student = network()
        self.teacher = teacher_of(self.student)
        usual = "keep" if getattr(self.pixel_loss, "function", None) is PIXEL_LOSSES["hard"] else "drop"
        self.keep = config.threshold > 0 and (config.confidence or usual) == "keep"
        self.register_buffer("class_confidence", torch.zeros(classes))
        self.register_buffer("seen", torch.zeros(2, classes))  # this step's sums and counts from `class_confidence`
        self.register_buffer("shown", torch.zeros(classes, self.facts.images.get("unlabelled", 0), dtype=torch.bool))
        self.streams = mixing_streams(Weak())
        if config.copy_paste:
            self.streams["source"] = Stream(Weak(), "labelled", partner="labelled")

    def notes(self, size: tuple[int, int]) -> list[str]:
        """Return a note if the confidence mask reduces FPL to cross entropy."""
        return under_mask(self.pixel_loss, self.config.threshold) if self.keep else []

    def predictor(self) -> nn.Module:
        """Return the teacher, as in the authors' evaluation."""
        return self.teacher

    def forward(self, batch: Mapping[str, Batch], progress: Progress) -> Step:
        """Compute the supervised loss after copy-paste, and alpha times the consistency losses."""
        if self.config.padding == "zero":
            batch = {name: _padding_taught(samples) for name, samples in batch.items()}
        labelled, a, b = batch["labelled"], batch["unlabelled"], batch["partner"]
        image, mask, valid = self._copy_paste(labelled, batch.get("source"))
        z_l = self.student(image)  # (B,C,h,w)
        self.seen += class_confidence(resize_logits(z_l.detach(), labelled.size), mask)
        losses = {"supervised": self.supervised_loss(z_l, mask)}
        weight = self.config.unsupervised_weight
        with torch.no_grad(), without_dropout(self.teacher):  # batch statistics of unmixed images
            t_a, t_b = self.teacher(torch.cat([a.image, b.image])).chunk(2)
            mixed = self._mix_mask(t_a, t_b, a, b)  # (B,H,W), True: partner
        if self.config.labelled_too:
            with torch.no_grad(), without_dropout(self.teacher):
                t_l = self.teacher(image)
            losses["labelled_consistency"] = weight * self._term(z_l, t_l, valid, labelled.seed, progress)[0]
        z_u = self.student(paste(a.image, b.image, mixed))
        valid = paste(a.valid, b.valid, mixed)
        unsupervised, metrics = self._term(z_u, Mixed(t_a, t_b, mixed), valid, a.seed, progress)
        losses["unsupervised"] = weight * unsupervised
        return Step(losses, {**metrics, "class_confidence": self.class_confidence.clone()})

    def _copy_paste(self, labelled: Batch, source: Batch | None) -> tuple[Tensor, Tensor, Tensor]:
        """Paste sampled classes of another image (adaptive copy-paste); return the new image, mask and valid mask."""
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
        # inverse-CDF sampling with replacement: the first class whose cumulative probability exceeds the random number
        classes = torch.searchsorted(reached / reached[-1], drawn[:, 1:].contiguous(), right=True)  # (B,K)
        over = class_masks(source.mask, classes) & (drawn[:, 0] < config.copy_paste_probability)[:, None, None]
        return (
            paste(labelled.image, source.image, over),
            paste(labelled.mask, source.mask, over),
            paste(labelled.valid, source.valid, over),
        )

    def _mix_mask(self, t_a: Tensor, t_b: Tensor, a: Batch, b: Batch) -> Tensor:
        """Return the CutMix mask (B,H,W) bool: a box around part of the partner's sampled class, or a random box.

        Also records which classes the images contain.
        """
        mask = box_masks(a.seed, a.size, boxes=1, area=(0.5, 0.5))
        if self.config.adaptive_mix:
            labels = [
                torch.where(s.valid, resize_logits(t, s.size).argmax(1), -1) for t, s in ((t_a, a), (t_b, b))
            ]  # (B,H,W) each
            parts, has_component = component_masks(labels[1], b.drawn_for, a.seed, smallest=self.config.mix_area)
            mask = torch.where(has_component[:, None, None], parts, mask)
            min_area = self.config.bank_area * a.size[0] * a.size[1]
            shows = area_of_classes(torch.cat(labels), len(self.shown)) >= max(min_area, 1)
            self.shown.copy_(noted(self.shown, torch.cat([a.index, b.index]), shows))
        return mask.to(a.image.device)

    def _term(
        self, student: Tensor, teacher: Tensor | Mixed, valid: Tensor, seeds: Tensor, progress: Progress
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the mean pixel loss over the sampled pixels, weighted by confidence^gamma, and metrics."""
        result = self.pixel_loss(student, teacher, size=valid.shape[1:], valid=valid, progress=progress, maps=True)
        sampled = self._sampled(student.detach(), (valid.shape[1], valid.shape[2]), seeds) & valid
        weight = torch.where(sampled, result.confidence**self.config.gamma, 0)  # (B,H,W)
        if self.config.normalise == "image":
            total = weight.sum((1, 2), keepdim=True)
            weight = weight / torch.where(total > 0, total, 1)
        loss = result.loss
        if self.keep:  # as in the authors' code, pixels below the threshold contribute 0 but stay in the denominator
            loss = torch.where(result.confidence >= self.config.threshold, loss, 0)
        return masked_mean(loss, weight), {**result.stats, "sampled": local_mean(sampled.float(), valid)}

    def _sampled(self, student: Tensor, size: tuple[int, int], seeds: Tensor) -> Tensor:
        """Return the mask (B,H,W) bool of pixels kept by adaptive equalisation sampling.

        A pixel that the student predicts as class k is kept with probability ((1 - c_k) / max_j (1 - c_j))^beta.
        """
        unsure = (1 - self.class_confidence).clamp(min=0)
        rate = (unsure / unsure.max().clamp(min=1e-12)) ** self.config.beta  # (C,)
        kept = uniform(seeds, size, purpose=3).to(student.device)
        return kept < rate[resize_logits(student, size).argmax(1)]

    def after_step(self, progress: Progress) -> None:
        """Update the teacher's weights and the confidence bank by EMA."""
        follow(self.teacher, self.student, warm_decay(progress.step, self.config.decay), buffers="own")
        decay = warm_decay(progress.step, self.config.memory)
        absent = self.config.absent == "decay"
        self.class_confidence.copy_(moved(self.class_confidence, self.seen, decay, absent=absent))
        self.seen.zero_()

    def draw_weights(self, stream: str) -> Tensor | None:
        """Return the partner's sampling weights: softmax(1 - confidence) over classes, uniform over a class's images.

        For a class without images, the weights are uniform over all images.
        """
        if stream != "partner" or not self.config.adaptive_mix:
            return None
        shown = self.shown.float()
        known = shown.sum(1, keepdim=True)
        images = torch.where(known > 0, shown / known.clamp(min=1), 1 / shown.shape[1])
        return torch.softmax(1 - self.class_confidence, 0).unsqueeze(1) * images


def _padding_taught(samples: Batch) -> Batch:
    """Mark padding as valid, with label 0 in masks, as in the authors' code."""
    mask = None if samples.mask is None else samples.mask.masked_fill(~samples.valid, 0)
    return replace(samples, mask=mask, valid=torch.ones_like(samples.valid))
