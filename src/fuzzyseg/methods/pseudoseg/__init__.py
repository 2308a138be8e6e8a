"""PseudoSeg: Designing Pseudo Labels for Semantic Segmentation.

Y. Zou, Z. Zhang, H. Zhang, C.-L. Li, X. Bian, J.-B. Huang, T. Pfister, ICLR 2021. An image classifier, trained on the
classes in the labelled masks, localises each class with Grad-CAM. Self-attention over the features refines the maps,
and a layer calibrates them. The maps are brought to a common scale with the prediction for the weak view, fused with it
and sharpened. The result is the soft label for the strong view, in which a square is hidden. With FPL, this label is
the teacher. Without sharpening (`temperature=1`), nearly all classes are positive.

Unlike the authors' code, we compute the scale per image (`normalise`), so that labels depend on other images only
through batch norm, and exclude padding from attention (the authors also exclude the hidden square, although the weak
view has none). Images without a labelled pixel do not train the classifier. If there is no background class, the
classifier covers all classes; the authors assume that there is one. The size of the hidden square scales with the crop.
Image-level labels for unlabelled images (`weakly`) are not implemented. Each process computes its own batch-norm
statistics and, with `normalise: batch`, its own scale.
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fuzzyseg.data.views import Batch, Stream, Weak, WeakStrong
from fuzzyseg.losses import cross_entropy_map, masked_mean, under_mask
from fuzzyseg.losses.supervised import VOID
from fuzzyseg.methods.base import Method, MethodConfig, Network, Progress, Step, setting
from fuzzyseg.methods.pseudoseg.cam import activation_maps, attended, fused, sharpened
from fuzzyseg.methods.pseudoseg.cutout import square_masks
from fuzzyseg.networks.heads import encoder_channels
from fuzzyseg.ops.channel_dropout import levels
from fuzzyseg.ops.module_mode import evaluating, without_dropout
from fuzzyseg.ops.resize import nearest_cells, resize_logits


class PseudoSegConfig(MethodConfig):
    """Settings of PseudoSeg."""

    unsupervised_weight: float = setting(1.0, "authors' code", "Weight of the strong view's loss.", ge=0)
    image_weight: float = setting(1.0, "authors' code", "Weight of the classifier's loss.", ge=0)
    attention_weight: float = setting(1.0, "authors' code", "Weight of the attention maps' loss.", ge=0)
    fusion: float = setting(0.5, "paper", "Fraction of the network's prediction; 0: only the maps.", ge=0, le=1)
    normalise: Literal["image", "batch", "pixel"] = setting(
        "image", "ours", "Scale of the logits: RMS of each image, of the batch (authors' code), or norm (paper)."
    )
    temperature: float = setting(0.5, "paper", "Temperature of the sharpening; 1: none.", gt=0)
    threshold: float = setting(0.0, "authors' code", "Minimum probability of a trained label.", ge=0, le=1)
    cutout: float = setting(50 / 513, "authors' code", "Half the hidden square's side / crop side.", ge=0, le=0.5)
    attention_channels: int = setting(128, "authors' code", "Channels of keys and queries.", ge=1)


class PseudoSeg(Method):
    """A fusion of two predictions supervises the strong view."""

    Config = PseudoSegConfig
    config: PseudoSegConfig
    paper_loss = ("soft", {})
    paper = "PseudoSeg, Zou et al., ICLR 2021"
    cost = "one network: 2 forwards with gradient, 1 without, the encoder once more; about 1 M parameters of two heads"

    def __init__(self, network: Network, *rest: Any) -> None:
        super().__init__(network, *rest)
        width, classes = self.config.attention_channels, self.facts.classes
        self.student = network()
        fine, coarse = encoder_channels(self.student, "pseudoseg")[-2:]
        self.foreground = [c for c in range(classes) if c != self.facts.background]
        self.classifier = nn.Conv2d(coarse, len(self.foreground), 1)  # (K) logits from the mean over positions
        self.query = nn.Conv2d(fine + coarse, width, 1, bias=False)
        self.key = nn.Conv2d(fine + coarse, width, 1, bias=False)
        self.calibrate = nn.Sequential(nn.Conv2d(classes, classes, 1, bias=False), nn.BatchNorm2d(classes))
        strong = WeakStrong(1, jitter_probability=1.0, grey_probability=0.0, blur_probability=0.0, add_brightness=True)
        self.streams = {"labelled": Stream(Weak(), "labelled"), "unlabelled": Stream(strong, "unlabelled")}

    def notes(self, size: tuple[int, int]) -> list[str]:
        """Return a note if the confidence mask reduces FPL to cross entropy."""
        return under_mask(self.pixel_loss, self.config.threshold)

    def forward(self, batch: Mapping[str, Batch], progress: Progress) -> Step:
        """Compute the losses of the labelled images, the classifier, the attention maps and the strong view."""
        labelled, unlabelled, config = batch["labelled"], batch["unlabelled"], self.config
        assert labelled.mask is not None
        network: Any = self.student
        with torch.no_grad():
            with without_dropout(network):
                z_w = network(unlabelled.image)  # (B,C,h,w), batch statistics
            with evaluating(network):
                features = network.encode(unlabelled.image)
            z_m = resize_logits(self._maps(features, unlabelled.valid)[0], z_w.shape[-2:])  # also with batch statistics
            p = fused(z_w, z_m, config.fusion, over=config.normalise)
            teacher = sharpened(p, config.temperature)
        unsupervised, metrics = self._strong(unlabelled, teacher, progress)
        features = network.encode(labelled.image)
        z_l = network.classify(network.decode(features))
        present = torch.stack([(labelled.mask == c).flatten(1).any(1) for c in self.foreground], 1)  # (B,K)
        z_a, image_logits = self._maps(features, labelled.valid, present)
        known = labelled.mask != VOID
        by_image = F.binary_cross_entropy_with_logits(image_logits.float(), present.float(), reduction="none").mean(1)
        attention = cross_entropy_map(resize_logits(z_a.float(), labelled.size), labelled.mask)
        losses = {
            "supervised": self.supervised_loss(z_l, labelled.mask),
            "unsupervised": config.unsupervised_weight * unsupervised,
            "images": config.image_weight * masked_mean(by_image, known.flatten(1).any(1)),
            "attention": config.attention_weight * masked_mean(attention, known),
        }
        return Step(losses, metrics)

    def _maps(self, features: Any, valid: Tensor, shown: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the calibrated logits (B,C,h,w) of the attended activation maps, and the classifier's logits (B,K).

        shown (B,K): the classes in each image; None uses the classifier's predictions. Gradients flow from the maps to
        keys, queries and the calibration layer, and from the classifier's logits to the classifier and the encoder.
        """
        fine, coarse = levels(features)[-2:]
        image_logits = self.classifier(coarse.mean((2, 3), keepdim=True)).flatten(1)
        present = image_logits.detach() >= 0 if shown is None else shown
        maps = activation_maps(coarse, self.classifier.weight.flatten(1), present)
        inputs = torch.cat([resize_logits(fine.detach(), coarse.shape[-2:]), coarse.detach()], 1)
        maps = attended(maps, self.query(inputs), self.key(inputs), nearest_cells(valid, coarse.shape[-2:]))
        if self.facts.background is not None:
            at = self.facts.background
            maps = torch.cat([maps[:, :at], 2 - maps.amax(1, keepdim=True), maps[:, at:]], 1)
        return self.calibrate(maps), image_logits

    def _strong(self, unlabelled: Batch, teacher: Tensor, progress: Progress) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the strong view's loss at the logits' stride, excluding the hidden square, and metrics."""
        half = round(self.config.cutout * min(unlabelled.size))
        hidden = square_masks(unlabelled.seed, unlabelled.size, half).to(unlabelled.image.device)  # (B,H,W)
        z_s = self.student(torch.where(hidden.unsqueeze(1), 0, unlabelled.strong[0]))
        valid = nearest_cells(unlabelled.valid & ~hidden, z_s.shape[-2:])  # (B,h,w)
        result = self.pixel_loss(z_s, teacher, size=valid.shape[1:], valid=valid, progress=progress, maps=True)
        # Pixels below the threshold contribute 0 but stay in the denominator
        kept = torch.where(result.confidence >= self.config.threshold, result.loss, 0)
        return masked_mean(kept, valid), result.stats
