"""Pixel Contrastive-Consistent Semi-Supervised Semantic Segmentation (PC2Seg).

Y. Zhong, B. Yuan, H. Wu, Z. Yuan, J. Peng, Y.-X. Wang, ICCV 2021. The predictions for a weak and a strong view of an
image are made consistent, and the features of each pixel in the two views are contrasted with those of other pixels.
There is no public code, and we only had access to the paper's abstract and figures. Choices that these leave open are
ours and are marked as such (docs/methods/pc2seg.md). This implementation does not reproduce the paper's results.

The paper has no pseudo labels, so support for FPL is our addition: a pixel loss replaces the consistency between soft
predictions. `debias=fuzzy` is also ours: it uses fuzzy positives (Alg. 1 of Qiao et al., CVPR 2023) instead of
probabilities.

Our choices are as follows. All views share one forward pass. The contrastive loss uses the encoder's coarsest features,
without gradient to those of the weak view. Feature-map positions that contain padding are neither anchors nor
negatives, and anchors without a possible negative are excluded. With a batch of one, negatives are the other positions
of the same image. Each process samples negatives from its own images, with torch's global generator.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from fuzzyseg.data.views import Batch, Stream, Weak, WeakStrong
from fuzzyseg.losses import assign_fuzzy_positives, masked_mean
from fuzzyseg.losses.base import at_size, full_precision
from fuzzyseg.losses.contrast import info_nce, unit
from fuzzyseg.methods.base import Method, MethodConfig, Network, Progress, Step, linear_ramp, setting
from fuzzyseg.networks.heads import encoder_channels, projector, run_stages
from fuzzyseg.ops.channel_dropout import levels
from fuzzyseg.ops.resize import whole_cells

# PseudoSeg's colour augmentation
_COLOURS = WeakStrong(jitter_probability=1.0, grey_probability=0.0, blur_probability=0.0, add_brightness=True)


class PC2SegConfig(MethodConfig):
    """Settings of PC2Seg; the source is "ours" if we do not know the paper's value."""

    consistency: Literal["cosine", "l2"] = setting("cosine", "paper", "Distance: 1 - cosine, or squared error.")
    consistency_weight: float = setting(1.0, "ours", "Weight of the consistency.", ge=0)
    unsupervised_weight: float = setting(
        0.25, "ours", "Weight of a pixel loss; makes its gradients about as large as those of the consistency.", ge=0
    )
    ramp: float = setting(0.1, "ours", "Fraction of the run over which either weight grows.", ge=0, le=1)
    contrast_weight: float = setting(0.1, "ours", "Weight of the contrast; adjust it together with `negatives`.", ge=0)
    temperature: float = setting(0.07, "ours", "tau.", gt=0)
    negatives: int = setting(200, "ours", "Negatives per anchor, drawn with replacement.", ge=1)
    other_image: bool = setting(True, "paper's best", "Draw negatives from images other than the anchor's.")
    debias: Literal["none", "probability", "fuzzy"] = setting(
        "probability", "paper's best", "Draw negatives by the probability of another class; fuzzy: by disjoint sets."
    )
    fuzzy_threshold: float = setting(0.9, "FPL paper", "Threshold T of the fuzzy sets.", gt=0, le=1)
    width: int = setting(128, "ours", "Channels of the projected features.", ge=1)


class PC2Seg(Method):
    """Consistency of predictions and contrastive learning of features between a weak and a strong view."""

    Config = PC2SegConfig
    config: PC2SegConfig
    paper_only = ("consistency", "consistency_weight")
    pixel_only = ("unsupervised_weight",)
    paper = "PC2Seg, Zhong et al., ICCV 2021"
    fuzzy = "variant"
    shares_forward = True
    cost = "one network and a projector (0.6 M parameters), 1 forward of 3 batches with gradient; a contrast of cells"

    def __init__(self, network: Network, *rest: Any) -> None:
        super().__init__(network, *rest)
        self.student = network()
        self.projector = projector(encoder_channels(self.student, "pc2seg")[-1], self.config.width, hidden=256)
        self.streams = {"labelled": Stream(Weak(), "labelled"), "unlabelled": Stream(_COLOURS, "unlabelled")}

    def forward(self, batch: Mapping[str, Batch], progress: Progress) -> Step:
        """Compute the supervised loss, the consistency or pixel loss, and the contrastive loss."""
        labelled, unlabelled, config = batch["labelled"], batch["unlabelled"], self.config
        stages = run_stages(self.student, torch.cat([labelled.image, unlabelled.image, unlabelled.strong[0]]))
        count = len(labelled.image)
        weak, strong = stages.logits[count:].chunk(2)  # (B,C,h,w)
        weak = weak.detach()
        ramp = linear_ramp(progress.step, int(config.ramp * progress.total))
        weight = config.consistency_weight if self.pixel_loss is None else config.unsupervised_weight
        loss, statistics = self.unlabelled_map(self._distance, strong, weak, unlabelled.valid, progress)
        term = weight * masked_mean(loss, unlabelled.valid)
        features = levels(stages.features)[-1][count:]
        losses = {
            "supervised": self.supervised_loss(stages.logits[:count], labelled.mask),
            "consistency": ramp * term,
            "contrast": config.contrast_weight * self._contrast(features, weak, unlabelled.valid),
        }
        return Step(losses, statistics)

    def _distance(self, strong: Tensor, weak: Tensor, *, size: Sequence[int], valid: Tensor) -> Tensor:
        """Return the distance (B,H,W) between the predictions of the two views."""
        with full_precision(strong.device):
            p, q = (torch.softmax(at_size(logits, size), 1) for logits in (strong, weak))
            return 1 - F.cosine_similarity(p, q, 1) if self.config.consistency == "cosine" else (p - q).square().sum(1)

    def _contrast(self, features: Tensor, weak: Tensor, valid: Tensor) -> Tensor:
        """Compute InfoNCE with anchors from the strong view and positives and negatives from the weak view.

        features: (2B,D,h,w), weak views first.
        """
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

    def _negatives(self, p: Tensor, shown: Tensor, image: Tensor | None, limit: int = 2**23) -> tuple[Tensor, Tensor]:
        """Sample negatives (N,count) for each of the N positions; also return whether a position has any (N,).

        image (N,): index of each position's image; positions of the same image are excluded. None excludes only the
        position itself. limit: maximum number of weights in memory.
        """
        group = torch.arange(len(p), device=p.device) if image is None else image
        kinds = p
        if self.config.debias == "fuzzy":
            kinds = assign_fuzzy_positives(p.clamp(min=1e-12).log(), threshold=self.config.fuzzy_threshold).float()
        index, able = [], []
        step = max(1, limit // len(p))
        for rows in (slice(start, start + step) for start in range(0, len(p), step)):
            weight = torch.ones_like(p[:, 0]) if self.config.debias == "none" else 1 - kinds[rows] @ kinds.T
            weight = torch.where((group[rows, None] != group) & shown & (weight > 1e-6), weight, 0)
            index.append(draw_weighted(weight, self.config.negatives))
            able.append(weight.any(1))
        return torch.cat(index), torch.cat(able)


def draw_weighted(weights: Tensor, count: int) -> Tensor:
    """Sample `count` indices per row in proportion to weights (R,N), with replacement: (R,count) int64.

    Unlike torch.multinomial, this never samples a weight of 0 and accepts rows of zeros, whose samples are meaningless.
    """
    running = weights.double().cumsum(1)
    chance = torch.rand(len(weights), count, device=weights.device, dtype=torch.float64)
    return torch.searchsorted(running, chance * running[:, -1:], right=True).clamp(max=weights.shape[1] - 1)
