"""PseudoSeg: Designing Pseudo Labels for Semantic Segmentation.

Y. Zou, Z. Zhang, H. Zhang, C.-L. Li, X. Bian, J.-B. Huang, T. Pfister, ICLR 2021. A classifier of images, trained on
the classes that the labelled masks show, tells by Grad-CAM where it sees each class; self-attention over the features
spreads that, and a layer calibrates it. Fused with the network's own prediction of the weak view, both at one scale,
and sharpened, it is the soft label of the strong view, of which a square is hidden. FPL is native, with the
sharpened label: before (`temperature=1`) it is so flat that nearly all classes are positive.

Where we leave the authors' code, and why. The scale is taken over each image (`normalise`), so that batch norm alone
makes a label depend on the other images. Attention leaves out padding alone; theirs also the hidden square, which the
weak view has not. An image without a labelled pixel teaches the classifier nothing. Without a background the classifier
has all classes (theirs always has one). The hidden square goes with the crop's size. Not implemented: image-level
labels of unlabelled images (`weakly`). Per process: batch norm's statistics; the scale with `normalise: batch`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from fuzzyseg.data.views import Batch, Stream, Weak, WeakStrong
from fuzzyseg.losses import cross_entropy_map, masked_mean, under_mask
from fuzzyseg.methods.base import Facts, Method, MethodConfig, Network, PixelLossModule, Progress, Step, SupervisedLoss
from fuzzyseg.methods.pseudoseg.cam import activation_maps, fused, sharpened, spread
from fuzzyseg.methods.pseudoseg.cutout import square_masks
from fuzzyseg.networks.stages import check_stages
from fuzzyseg.ops.channel_dropout import levels
from fuzzyseg.ops.class_banks import area_of_classes
from fuzzyseg.ops.module_mode import evaluating, without_dropout
from fuzzyseg.ops.resize import resize_logits, resize_valid


class PseudoSegConfig(MethodConfig):
    """Settings of PseudoSeg."""

    unsupervised_weight: float = Field(1.0, ge=0, description="Weight of the strong view's loss (the authors').")
    image_weight: float = Field(1.0, ge=0, description="Weight of the classifier's loss (the authors').")
    attention_weight: float = Field(1.0, ge=0, description="Weight of the attention maps' loss (the authors').")
    fusion: float = Field(0.5, ge=0, le=1, description="Share of the network's own prediction (paper); 0: maps alone.")
    normalise: Literal["image", "batch", "pixel"] = Field(
        "image", description="Scale of the logits: RMS of each image; of the batch (authors' code); norm (paper)."
    )
    temperature: float = Field(0.5, gt=0, description="Of sharpening (paper); 1: none, for FPL on what was fused.")
    threshold: float = Field(0.0, ge=0, le=1, description="Least probability of a label that teaches (authors': 0).")
    cutout: float = Field(
        50 / 513, ge=0, le=0.5, description="Half the hidden square's side over the crop's (authors': 50 of 513)."
    )
    attention_channels: int = Field(128, ge=1, description="Width of keys and queries (the authors').")


class PseudoSeg(Method):
    """Labels designed from two predictions teach the strong view."""

    Config = PseudoSegConfig
    paper_loss = ("soft", {})
    paper = "PseudoSeg, Zou et al., ICLR 2021"
    cost = "one network: 2 forwards with gradient, 1 without, the encoder once more; about 1 M parameters of two heads"

    def __init__(
        self,
        network: Network,
        supervised_loss: SupervisedLoss,
        pixel_loss: PixelLossModule | None,
        config: PseudoSegConfig,
        facts: Facts,
    ) -> None:
        super().__init__(network, supervised_loss, pixel_loss, config, facts)
        self.config: PseudoSegConfig = config
        self.student = network()
        check_stages(self.student, "PseudoSeg")
        channels = getattr(self.student, "encoder_channels", None)
        if channels is None:
            raise ValueError("network: PseudoSeg puts heads on features; give the network `encoder_channels`, a tuple")
        fine, coarse = channels[-2:]
        self.foreground = [c for c in range(facts.classes) if c != facts.background]
        self.classifier = nn.Conv2d(coarse, len(self.foreground), 1)  # (K) of the mean over the cells
        self.query = nn.Conv2d(fine + coarse, config.attention_channels, 1, bias=False)
        self.key = nn.Conv2d(fine + coarse, config.attention_channels, 1, bias=False)
        self.calibrate = nn.Sequential(
            nn.Conv2d(facts.classes, facts.classes, 1, bias=False), nn.BatchNorm2d(facts.classes)
        )
        strong = WeakStrong(1, jitter_probability=1.0, grey_probability=0.0, blur_probability=0.0, add_brightness=True)
        self.streams = {"labelled": Stream(Weak(), "labelled"), "unlabelled": Stream(strong, "unlabelled")}

    def notes(self, size: tuple[int, int]) -> list[str]:
        """That a loss over sets is cross entropy under the mask."""
        return under_mask(self.pixel_loss, self.config.threshold)

    def forward(self, batch: Mapping[str, Batch], progress: Progress) -> Step:
        """Supervised loss, classifier, attention maps, and the strong view under its designed labels."""
        labelled, unlabelled, config = batch["labelled"], batch["unlabelled"], self.config
        assert labelled.mask is not None
        network: Any = self.student
        with torch.no_grad():
            with without_dropout(network):
                z_w = network(unlabelled.image)  # (B,C,h,w), batch statistics
            with evaluating(network):
                features = network.encode(unlabelled.image)
            z_m = resize_logits(self._maps(features, unlabelled.valid)[0], z_w.shape[-2:])  # batch statistics, too
            p = fused(z_w, z_m, config.fusion, over=config.normalise)
            teacher = sharpened(p, config.temperature)
        unsupervised, metrics = self._strong(unlabelled, teacher, progress)
        features = network.encode(labelled.image)
        z_l = network.classify(network.decode(features))
        shown = area_of_classes(labelled.mask, self.facts.classes)[:, self.foreground] > 0  # (B,K)
        z_a, image_logits = self._maps(features, labelled.valid, shown)
        known = labelled.mask != 255
        by_image = F.binary_cross_entropy_with_logits(image_logits.float(), shown.float(), reduction="none").mean(1)
        attention = cross_entropy_map(resize_logits(z_a.float(), labelled.size), labelled.mask)
        losses = {
            "supervised": self.supervised_loss(z_l, labelled.mask),
            "unsupervised": config.unsupervised_weight * unsupervised,
            "images": config.image_weight * masked_mean(by_image, known.flatten(1).any(1)),
            "attention": config.attention_weight * masked_mean(attention, known),
        }
        return Step(losses, metrics)

    def _maps(self, features: Any, valid: Tensor, shown: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits (B,C,h,w) of the attended activation maps, and the classifier's (B,K).

        shown (B,K): the classes of each image; None: those that the classifier finds. The gradient of the first reaches
        keys, queries and the calibrating layer alone, that of the second the classifier and the encoder.
        """
        fine, coarse = levels(features)[-2:]
        image_logits = self.classifier(coarse.mean((2, 3), keepdim=True)).flatten(1)
        present = image_logits.detach() >= 0 if shown is None else shown
        maps = activation_maps(coarse, self.classifier.weight.flatten(1), present)
        seen = torch.cat([resize_logits(fine.detach(), coarse.shape[-2:]), coarse.detach()], 1)
        maps = spread(maps, self.query(seen), self.key(seen), resize_valid(valid, coarse.shape[-2:]))
        if self.facts.background is not None:
            at = self.facts.background
            maps = torch.cat([maps[:, :at], 2 - maps.amax(1, keepdim=True), maps[:, at:]], 1)
        return self.calibrate(maps), image_logits

    def _strong(self, unlabelled: Batch, teacher: Tensor, progress: Progress) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of the strong view at the logits' stride, without the hidden square, and what is logged."""
        assert self.pixel_loss is not None
        half = round(self.config.cutout * min(unlabelled.size))
        hidden = square_masks(unlabelled.seed, unlabelled.size, half).to(unlabelled.image.device)  # (B,H,W)
        z_s = self.student(torch.where(hidden.unsqueeze(1), 0, unlabelled.strong[0]))
        valid = resize_valid(unlabelled.valid & ~hidden, z_s.shape[-2:])  # (B,h,w)
        result = self.pixel_loss(z_s, teacher, size=valid.shape[1:], valid=valid, progress=progress, maps=True)
        # The mean is over all valid pixels, also those whose label is below the threshold.
        kept = torch.where(result.confidence >= self.config.threshold, result.loss, 0)
        return masked_mean(kept, valid), result.stats
