"""Pixel Contrastive-Consistent Semi-Supervised Semantic Segmentation (PC2Seg).

Y. Zhong, B. Yuan, H. Wu, Z. Yuan, J. Peng, Y.-X. Wang, ICCV 2021. Predictions of a weak and a strong view of an image
agree, and so do the features of a pixel in both, against those of other pixels. There is no public code, and we had but
abstract and figures of the paper: what they leave open is our choice and called so (docs/methods/pc2seg.md). Runs of
this file are no reproduction.

FPL is a variant of ours: it takes the place of the consistency of soft predictions, for the paper has no hard label.
`debias: fuzzy` is ours too: fuzzy positives (Alg. 1 of Qiao et al., CVPR 2023) in the place of probabilities.

Our choices: one forward of all views; the encoder's coarsest features; the weak view's features get no gradient; cells
with padding are neither anchors nor negatives. Anchors without a possible negative do not count. In a batch of one the
other cells of its image are the negatives. Per process: the images that negatives come from, and the draws, by torch's
global generator.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from fuzzyseg.data.views import Batch, Stream, Weak, WeakStrong
from fuzzyseg.losses import assign_fuzzy_positives, masked_mean
from fuzzyseg.losses.arguments import at_size, full_precision
from fuzzyseg.losses.contrast import info_nce, unit
from fuzzyseg.methods.base import Facts, Method, MethodConfig, Network, PixelLossModule, Progress, Step, SupervisedLoss
from fuzzyseg.networks.heads import feature_channels, projector, run_stages, stage
from fuzzyseg.ops.feature_grid import whole_cells
from fuzzyseg.ops.masked_sampling import draw_weighted
from fuzzyseg.ops.ramp import linear_ramp

# those of PseudoSeg
_COLOURS = WeakStrong(jitter_probability=1.0, grey_probability=0.0, blur_probability=0.0, add_brightness=True)


class PC2SegConfig(MethodConfig):
    """Settings of PC2Seg; (ours) where the paper's value is not known to us."""

    consistency: Literal["cosine", "l2"] = Field("cosine", description="1 - cosine of predictions, or squared (paper).")
    consistency_weight: float = Field(1.0, ge=0, description="Of the consistency (ours).")
    unsupervised_weight: float = Field(
        0.25, ge=0, description="Of the pixel loss that takes its place; so their gradients are alike (ours)."
    )
    ramp: float = Field(0.1, ge=0, le=1, description="Share of the run over which either grows (ours).")
    contrast_weight: float = Field(0.1, ge=0, description="Of the contrast (ours); follow it when `negatives` changes.")
    temperature: float = Field(0.07, gt=0, description="tau (ours).")
    negatives: int = Field(200, ge=1, description="Negatives per anchor, drawn with replacement (ours).")
    other_image: bool = Field(True, description="Negatives come from other images than the anchor's (paper's best).")
    debias: Literal["none", "probability", "fuzzy"] = Field(
        "probability", description="Draw by the probability of another class (paper's best); fuzzy: sets apart (ours)."
    )
    fuzzy_threshold: float = Field(0.9, gt=0, le=1, description="T of these sets (FPL's paper).")
    width: int = Field(128, ge=1, description="Channels of the projected features (ours).")


class PC2Seg(Method):
    """Consistency of predictions and contrast of features between a weak and a strong view."""

    Config = PC2SegConfig
    paper_loss = None
    paper_only = ("consistency", "consistency_weight")
    pixel_only = ("unsupervised_weight",)
    paper = "PC2Seg, Zhong et al., ICCV 2021"
    fuzzy = "variant"
    shares_forward = True
    cost = "one network and a projector (.6 M parameters), 1 forward of 3 batches with gradient; a contrast of cells"

    def __init__(
        self,
        network: Network,
        supervised_loss: SupervisedLoss,
        pixel_loss: PixelLossModule | None,
        config: PC2SegConfig,
        facts: Facts,
    ) -> None:
        super().__init__(network, supervised_loss, pixel_loss, config, facts)
        self.config: PC2SegConfig = config
        self.student = network()
        self.projector = projector(feature_channels(self.student, "pc2seg").encoder[-1], config.width, hidden=256)
        self.streams = {"labelled": Stream(Weak(), "labelled"), "unlabelled": Stream(_COLOURS, "unlabelled")}

    def forward(self, batch: Mapping[str, Batch], progress: Progress) -> Step:
        """Supervised loss, consistency or the pixel loss in its place, and the contrast."""
        labelled, unlabelled, config = batch["labelled"], batch["unlabelled"], self.config
        assert labelled.mask is not None
        found = run_stages(self.student, torch.cat([labelled.image, unlabelled.image, unlabelled.strong[0]]))
        count = len(labelled.image)
        weak, strong = found.logits[count:].chunk(2)  # (B,C,h,w)
        weak = weak.detach()
        ramp = linear_ramp(progress.step, int(config.ramp * progress.total))
        if self.pixel_loss is None:
            term = config.consistency_weight * masked_mean(self._distance(strong, weak, unlabelled), unlabelled.valid)
            statistics = {}
        else:
            result = self.pixel_loss(strong, weak, size=unlabelled.size, valid=unlabelled.valid, progress=progress)
            term = config.unsupervised_weight * masked_mean(result.loss, unlabelled.valid)
            statistics = result.stats
        features = stage(found.features, -1)[count:]
        losses = {
            "supervised": self.supervised_loss(found.logits[:count], labelled.mask),
            "consistency": ramp * term,
            "contrast": config.contrast_weight * self._contrast(features, weak, unlabelled.valid),
        }
        return Step(losses, statistics)

    def _distance(self, strong: Tensor, weak: Tensor, samples: Batch) -> Tensor:
        """(B,H,W): how far the predictions of the two views are apart."""
        with full_precision(strong.device):
            p, q = (torch.softmax(at_size(logits, samples.size), 1) for logits in (strong, weak))
            return 1 - F.cosine_similarity(p, q, 1) if self.config.consistency == "cosine" else (p - q).square().sum(1)

    def _contrast(self, features: Tensor, weak: Tensor, valid: Tensor) -> Tensor:
        """InfoNCE of the strong view's cells: the weak view's same cell against others. features (2B,D,h,w)."""
        projected = unit(self.projector(features)).movedim(1, -1)  # (2B,h,w,D)
        theirs, ours = (each.flatten(0, 2) for each in projected.chunk(2))  # (N,D)
        theirs = theirs.detach()
        grid = (features.shape[2], features.shape[3])
        with torch.no_grad(), full_precision(weak.device):
            p = F.adaptive_avg_pool2d(torch.softmax(weak.float(), 1), grid).movedim(1, -1).flatten(0, 2)  # (N,C)
            shown = whole_cells(valid, grid).flatten()
            image = torch.arange(len(valid), device=valid.device).repeat_interleave(grid[0] * grid[1])
            index, able = self._negatives(p, shown, image if self.config.other_image and len(valid) > 1 else None)
        loss = info_nce(ours, theirs, theirs, temperature=self.config.temperature, index=index)
        return masked_mean(loss, shown & able)

    def _negatives(self, p: Tensor, shown: Tensor, image: Tensor | None, held: int = 2**23) -> tuple[Tensor, Tensor]:
        """Cells (N,count) drawn for each of the N, and whether it has any: of other images, or but itself if None."""
        group = torch.arange(len(p), device=p.device) if image is None else image
        kinds = p
        if self.config.debias == "fuzzy":
            kinds = assign_fuzzy_positives(p.clamp(min=1e-12).log(), threshold=self.config.fuzzy_threshold).float()
        index, able = [], []
        step = max(1, held // len(p))
        for rows in (slice(start, start + step) for start in range(0, len(p), step)):
            weight = torch.ones_like(p[:, 0]) if self.config.debias == "none" else 1 - kinds[rows] @ kinds.T
            weight = torch.where((group[rows, None] != group) & shown & (weight > 1e-6), weight, 0)
            index.append(draw_weighted(weight, self.config.negatives))
            able.append(weight.any(1))
        return torch.cat(index), torch.cat(able)
