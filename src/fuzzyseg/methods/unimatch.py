"""Revisiting Weak-to-Strong Consistency in Semi-Supervised Semantic Segmentation (UniMatch).

L. Yang, L. Qi, L. Feng, W. Zhang, Y. Shi, CVPR 2023. FixMatch with two more sources of strong views, all guided by what
the network says of the weak view: a second strong view of the image, drawn apart, and a perturbation of features, the
weak image's encoder output with half of the channels dropped.

Where we leave the authors' code, and why. Channels are dropped on every map that the encoder hands on, so that any
decoder's input is perturbed; theirs reads two, which are dropped apart, as ours are. The pasted rectangles are of
another image: theirs are of another crop of the same one, because two samplers share a seed (a slip, the authors say).
Strong views jitter and blur as ours do (`data/views.py`). Padding is the mean colour, theirs is black. Rectangles and
dropped channels follow the sample's seed; the network's own dropout and batch-norm statistics are per process. No step
is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field, field_validator
from torch import Tensor

from fuzzyseg.data.views import Batch, Stream, Weak, WeakStrong
from fuzzyseg.losses import CONFIDENCE, Confidence, ConfidentPixels
from fuzzyseg.methods.base import Facts, Method, MethodConfig, Network, PixelLossModule, Progress, Step, SupervisedLoss
from fuzzyseg.networks.stages import check_stages
from fuzzyseg.ops.channel_dropout import channel_masks, join, levels, scale_channels
from fuzzyseg.ops.mix import Mixed, paste, rectangle_masks
from fuzzyseg.ops.module_mode import evaluating


class UniMatchConfig(MethodConfig):
    """Settings of UniMatch."""

    threshold: float = Field(
        0.95, description="A pixel is confident from this probability on; the authors' later Cityscapes runs have 0."
    )
    confidence: Confidence = Field(None, description=CONFIDENCE)
    image_weight: float = Field(0.25, ge=0, description="Weight of each of the two strong views (the authors').")
    feature_weight: float = Field(0.5, ge=0, description="Weight of the perturbed features (the authors').")
    channel_dropout: float = Field(0.5, ge=0, lt=1, description="Share of the channels dropped (the authors').")
    cutmix_probability: float = Field(0.5, ge=0, le=1, description="Share of images that get a rectangle (authors').")
    box_area: tuple[float, float] = Field((0.02, 0.4), description="Range of the rectangle's share (authors').")

    @field_validator("box_area")
    @classmethod
    def _shares(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1] <= 0.7:
            raise ValueError("expected two shares in (0, .7], the smaller one first: larger ones hardly fit anywhere")
        return value


class UniMatch(Method):
    """Labels of the weak view teach two strong views and the weak view with channels dropped."""

    Config = UniMatchConfig
    paper_loss = ("hard", {})
    paper = "UniMatch, Yang et al., CVPR 2023"
    shares_forward = True
    cost = "one network: 2 forwards on double batches, the decoder twice in the first, and 1 without gradient"

    def __init__(
        self,
        network: Network,
        supervised_loss: SupervisedLoss,
        pixel_loss: PixelLossModule | None,
        config: UniMatchConfig,
        facts: Facts,
    ) -> None:
        super().__init__(network, supervised_loss, pixel_loss, config, facts)
        self.config: UniMatchConfig = config
        self.student = network()
        check_stages(self.student, "UniMatch")
        self.confident: ConfidentPixels = ConfidentPixels(config.confidence, config.threshold, pixel_loss)
        self.streams = {
            "labelled": Stream(Weak(), "labelled"),
            "unlabelled": Stream(WeakStrong(2), "unlabelled"),
            "partner": Stream(WeakStrong(2), "unlabelled", partner="unlabelled"),
        }

    def notes(self, size: tuple[int, int]) -> list[str]:
        """What the mask of confident pixels makes of the loss."""
        return self.confident.notes(self.pixel_loss)

    def forward(self, batch: Mapping[str, Batch], progress: Progress) -> Step:
        """Half of: supervised loss, a quarter of each strong view's, half of the perturbed features'."""
        labelled, a, b = batch["labelled"], batch["unlabelled"], batch["partner"]
        assert labelled.mask is not None
        config, count = self.config, len(labelled.image)
        drawn = rectangle_masks(a.seed, a.size, views=2, probability=config.cutmix_probability, area=config.box_area)
        masks = [mask.to(a.image.device) for mask in drawn]  # (B,H,W) each, True: partner
        with torch.no_grad(), evaluating(self.student):
            pasted = self.student(b.image)  # (B,C,h,w)
        seeds = torch.cat([labelled.seed, a.seed])
        plain, perturbed = self._perturbed(torch.cat([labelled.image, a.image]), seeds)
        weak = plain[count:].detach()
        strong = [paste(va, vb, mask) for va, vb, mask in zip(a.strong, b.strong, masks, strict=True)]
        z_1, z_2 = self.student(torch.cat(strong)).chunk(2)
        valid = [paste(a.valid, b.valid, mask) for mask in masks]
        first, stats_1 = self._term(z_1, Mixed(weak, pasted, masks[0]), valid[0], progress)
        second, stats_2 = self._term(z_2, Mixed(weak, pasted, masks[1]), valid[1], progress)
        features, _ = self._term(perturbed[count:], weak, a.valid, progress)  # no rectangle here
        losses = {
            "supervised": self.supervised_loss(plain[:count], labelled.mask),
            "strong_1": config.image_weight * first,
            "strong_2": config.image_weight * second,
            "features": config.feature_weight * features,
        }
        metrics = {name: (value + stats_2[name]) / 2 for name, value in stats_1.items()}
        return Step({name: loss / 2 for name, loss in losses.items()}, metrics)

    def _perturbed(self, image: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the images, and of their features with channels dropped; the decoder sees both as one batch."""
        network: Any = self.student
        features = network.encode(image)
        channels = [each.shape[1] for each in levels(features)]
        dropped = scale_channels(features, channel_masks(seeds, channels, self.config.channel_dropout))
        plain, perturbed = network.classify(network.decode(join(features, dropped))).chunk(2)
        return plain, perturbed

    def _term(
        self, student: Tensor, teacher: Tensor | Mixed, valid: Tensor, progress: Progress
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean over all valid pixels, the unconfident ones counting as 0, and what is logged."""
        assert self.pixel_loss is not None
        size = (int(valid.shape[-2]), int(valid.shape[-1]))
        result = self.pixel_loss(student, teacher, size=size, valid=valid, progress=progress, maps=True)
        taught: tuple[Tensor, dict[str, Tensor]] = self.confident(result, valid)
        return taught
