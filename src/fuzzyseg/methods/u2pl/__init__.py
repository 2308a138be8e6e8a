"""Semi-Supervised Semantic Segmentation Using Unreliable Pseudo-Labels (U2PL).

Y. Wang, H. Wang, Y. Shen, J. Fei, W. Li, G. Jin, L. Wu, R. Zhao, X. Le, CVPR 2022. A mean teacher with CutMix. A
decreasing fraction of pixels, those with the highest entropy, is excluded from the pseudo-label loss; these pixels
become negatives for unlikely classes in a contrastive loss with a memory bank per class. FPL replaces the pseudo-label
cross entropy.

Unlike in the authors' code, the anchors, the positive and the bank of a loss term always belong to the same class
(theirs mixes up an index), a negative for class k has k in its window of ranks and a different label, and one-hot
labels stay with their image (theirs all go into the first). The head uses the decoder's features. Images are mixed
individually, in boxes of log-uniform height. Percentiles in the contrastive loss are computed over feature-map
positions. Padding is excluded. Moving prototypes, delta_n and U2PL with AEL are not implemented. Each process computes
its own percentiles, lambda_u and prototypes, mixes its own images, and uses its own random numbers except for the
boxes.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fuzzyseg.data.views import Batch, Stream, Weak
from fuzzyseg.losses import masked_mean
from fuzzyseg.losses.base import at_size, full_precision
from fuzzyseg.losses.contrast import info_nce, unit
from fuzzyseg.losses.supervised import VOID
from fuzzyseg.methods.base import Method, MethodConfig, Network, Progress, Step, setting
from fuzzyseg.methods.u2pl.bank import ClassBank
from fuzzyseg.methods.u2pl.contrast import contrast_parts, draw_members, entropy_of, mean_of_classes, valid_quantile
from fuzzyseg.networks.heads import Stages, convolutional_head, decoder_channels, encoder_channels, run_stages
from fuzzyseg.ops.channel_dropout import levels
from fuzzyseg.ops.ema import follow, teacher_of, warm_decay
from fuzzyseg.ops.mix import Mixed, box_masks, paste
from fuzzyseg.ops.module_mode import evaluating, without_dropout
from fuzzyseg.ops.resize import nearest_cells


class U2PLConfig(MethodConfig):
    """Settings of U2PL. Durations are fractions of the run; the authors count epochs (80 on VOC)."""

    unsupervised_weight: float = setting(1.0, "authors' code", "Weight of the pseudo-label loss.", ge=0)
    confidence: Literal["keep", "drop"] = setting("keep", "paper", "drop: also train on pixels of high entropy (ours).")
    drop: float = setting(0.2, "paper", "Fraction of excluded pixels at the start; falls to 0.", ge=0, lt=1)
    contrast_weight: float = setting(0.1, "paper", "lambda_c (1 over the number of processes in the code).", ge=0)
    entropy: float = setting(0.2, "paper", "Initial fraction of low- and high-entropy pixels.", ge=0, le=0.5)
    ranks: tuple[int, int] = setting((3, 20), "paper", "r_l, r_h: ranks of the unlikely classes, from 3 to 19.")
    anchor_confidence: float = setting(0.3, "paper", "delta_p: minimum confidence of anchors.", ge=0, le=1)
    anchors: int = setting(256, "authors' code", "Anchors per class and step (50 in the paper).", ge=1)
    negatives: int = setting(50, "authors' code", "Negatives per anchor (256 in the paper).", ge=1)
    temperature: float = setting(0.5, "paper", "tau.", gt=0)
    bank: tuple[int, int] = setting((30000, 50000), "authors' code", "Rows per class; for background or class 0.")
    width: int = setting(256, "authors' code", "Hidden and output channels of the representation head.", ge=1)
    auxiliary_weight: float = setting(0.0, "authors' code", "Weight of an auxiliary classifier (0 or 0.4).", ge=0)
    mix: float = setting(0.5, "authors' code", "Probability of CutMix.", ge=0, le=1)
    decay: float = setting(0.99, "paper", "Decay of the teacher.", ge=0, lt=1)
    start: float = setting(1 / 80, "authors' code, VOC", "Initial supervised fraction (Cityscapes: 0).", ge=0, lt=1)
    copy_share: float = setting(1 / 80, "authors' code", "Fraction, from `start`, with teacher = student.", ge=0, lt=1)


class U2PL(Method):
    """Mean teacher with an entropy filter and a contrastive loss on the excluded pixels."""

    Config = U2PLConfig
    config: U2PLConfig
    paper_loss = ("hard", {})
    paper = "U2PL, Wang et al., CVPR 2022"
    cost = "one network, a 2-layer head (1.3 M), a copy of both; 2 batches with gradient, 3 without; a contrast"
    keeps = "teacher and its head; bank of 30,000 features per class (fp32, 31 MB each)"

    def __init__(self, network: Network, *rest: Any) -> None:
        super().__init__(network, *rest)
        config, facts = self.config, self.facts
        self.student = network()
        width = decoder_channels(self.student, "u2pl")
        self.head = convolutional_head(width, config.width, hidden=config.width, layers=2)
        self.teacher, self.teacher_head = teacher_of(self.student), teacher_of(self.head)
        if config.auxiliary_weight:
            self.auxiliary = convolutional_head(encoder_channels(self.student, "u2pl")[-2], facts.classes)
        self.bank = ClassBank([config.bank[c == (facts.background or 0)] for c in range(facts.classes)], config.width)
        self.streams = {"labelled": Stream(Weak(), "labelled"), "unlabelled": Stream(Weak(), "unlabelled")}

    def predictor(self) -> nn.Module:
        """Return the teacher, as in the authors' evaluation; before `start` it equals the student."""
        return self.teacher

    def forward(self, batch: Mapping[str, Batch], progress: Progress) -> Step:
        """Compute the supervised loss, the pseudo-label loss on low-entropy pixels, and the contrastive loss."""
        labelled, unlabelled, config = batch["labelled"], batch["unlabelled"], self.config
        assert labelled.mask is not None
        started = progress.step >= int(config.start * progress.total)
        images, count = labelled.image, len(labelled.image)
        if started:
            masks = box_masks(unlabelled.seed, unlabelled.size, boxes=1, area=(0.5, 0.5), probability=config.mix)
            mask = masks.to(images.device)  # (B,H,W), True: the next image of the batch
            images = torch.cat([images, paste(unlabelled.image, unlabelled.image.roll(-1, 0), mask)])
        ours = run_stages(self.student, images)
        losses = {"supervised": self.supervised_loss(ours.logits[:count], labelled.mask)}
        if config.auxiliary_weight:
            guess = self.auxiliary(levels(ours.features)[-2][:count])
            losses["auxiliary"] = config.auxiliary_weight * self.supervised_loss(guess, labelled.mask)
        if not started:
            return Step(losses)
        valid = paste(unlabelled.valid, unlabelled.valid.roll(-1, 0), mask)
        left = 1 - progress.step / progress.total  # 1 - e/E
        with torch.no_grad(), evaluating(self.teacher):
            clean = self.teacher(unlabelled.image)
        target = Mixed(clean, clean.roll(-1, 0), mask)
        with torch.no_grad(), without_dropout(self.teacher):
            label = torch.where(valid, at_size(target, unlabelled.size).argmax(1), VOID)
            theirs = run_stages(self.teacher, images)  # for the mixed images, with batch statistics
            entropy = entropy_of(theirs.logits[count:], unlabelled.size)  # (B,H,W)
            limit = valid_quantile(entropy, valid, 1 - config.drop * left)
            kept = valid & (entropy < limit) if config.confidence == "keep" else valid
            scale = valid.sum() / kept.sum().clamp(min=1)  # lambda_u
        term = self.pixel_loss(ours.logits[count:], target, size=unlabelled.size, valid=kept, progress=progress)
        losses["unsupervised"] = config.unsupervised_weight * scale * masked_mean(term.loss, kept)
        label = torch.cat([nearest_cells(each, ours.decoded.shape[-2:]) for each in (labelled.mask, label)])
        contrast = self._contrast(ours, theirs, label, nearest_cells(entropy, label.shape[1:]), config.entropy * left)
        return Step({**losses, "contrast": config.contrast_weight * contrast}, term.stats)

    def _contrast(self, ours: Stages, theirs: Stages, label: Tensor, entropy: Tensor, share: float) -> Tensor:
        """Push keys to the bank and return the contrastive loss averaged over classes.

        label (B,h,w), labelled images first; entropy (B_u,h,w).
        """
        config, maps = self.config, (self.head(ours.decoded), self.teacher_head(theirs.decoded))
        features, keys = (each.movedim(1, -1).flatten(0, 2) for each in maps)  # (N,D)
        with torch.no_grad(), full_precision(label.device):
            p = torch.softmax(at_size(theirs.logits, label.shape[1:]), 1).movedim(1, -1).flatten(0, 2)
            known = (p, label.flatten(), entropy.flatten())
            parts = contrast_parts(*known, share=share, ranks=config.ranks, confidence=config.anchor_confidence)
            max_keys = len(keys) - entropy.numel() + math.ceil(share * entropy.numel()) + 1
            self.bank.push(unit(keys), parts.key, max_keys)
            positives = unit(parts.present.T.float() @ keys.float()).repeat_interleave(config.anchors, 0)  # by class
            places = draw_members(parts.anchor.T, config.anchors).flatten()
            rows = self.bank.draw(config.anchors, config.negatives).flatten(0, 1)
        loss = info_nce(unit(features[places]), positives, self.bank.rows, temperature=config.temperature, index=rows)
        return mean_of_classes(loss.view(-1, config.anchors), parts, self.bank.filled)

    def after_step(self, progress: Progress) -> None:
        """Copy the student's weights at first, then update the teacher by EMA; copy buffers only before `start`."""
        start, copying = (int(s * progress.total) for s in (self.config.start, self.config.copy_share))
        since = progress.step - start
        decay = 0.0 if since + 1 < copying else warm_decay(max(since, 0), self.config.decay)
        for teacher, student in ((self.teacher, self.student), (self.teacher_head, self.head)):
            follow(teacher, student, decay, buffers="copy" if since < 0 else "own")
