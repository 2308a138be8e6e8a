"""UniMatch V2: Pushing the Limit of Semi-Supervised Semantic Segmentation.

L. Yang, Z. Zhao, H. Zhao, arXiv 2410.10777. An average of the network's weights labels the plain crop; two strong views
of it learn from that, in one stream each: a view has colours, a pasted rectangle, and half of its encoder channels
dropped, and what one view loses the other keeps. Half of the images lose nothing. The paper's network is DINOv2 with a
DPT decoder (`network.arch=DPT`), where the same mask multiplies all four levels; with an encoder whose levels differ in
width each level has its own mask, as the authors advise.

Where we leave the authors' code, and why. The pasted rectangle comes from a partner stream, not from the batch turned
round: an odd batch, or one of a single image, would be mixed with itself, and a draw would depend on the number of
processes. Whether an image loses channels is drawn for each image, with probability one half, where theirs takes
exactly half of a batch, for the same reason. Prefix tokens, which segmentation_models_pytorch's DPT reads too (theirs
leaves them out: `network.decoder_readout=ignore`), lose the channels of their level. That DPT reads its levels before
the encoder's last norm, theirs after it, and has batch norm in its decoder. Strong views jitter and blur as ours do
(`data/views.py`). Padding is the mean colour, theirs is black. The network's own dropout and batch-norm statistics are
per process. No step is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from fuzzyseg.data.views import Batch, Stream, Weak, WeakStrong
from fuzzyseg.losses import CONFIDENCE, Confidence, ConfidentPixels
from fuzzyseg.methods.base import Facts, Method, MethodConfig, Network, PixelLossModule, Progress, Step, SupervisedLoss
from fuzzyseg.methods.unimatch_v2.complementary_dropout import complementary_masks
from fuzzyseg.networks.stages import check_stages
from fuzzyseg.ops.channel_dropout import levels, scale_channels
from fuzzyseg.ops.ema import follow, teacher_of, warm_decay
from fuzzyseg.ops.mix import Mixed, paste, rectangle_masks
from fuzzyseg.ops.module_mode import evaluating


class UniMatchV2Config(MethodConfig):
    """Settings of UniMatch V2."""

    threshold: float = Field(0.95, description="A pixel is confident from this probability on (the authors').")
    confidence: Confidence = Field(None, description=CONFIDENCE)
    unsupervised_weight: float = Field(1.0, ge=0, description="Weight of the mean of both views' losses (authors').")
    undropped: float = Field(0.5, ge=0, le=1, description="Share of the images that lose no channel (the authors').")
    decay: float = Field(0.996, ge=0, lt=1, description="Of the average, after a warm-up 1 - 1/(step + 1) (authors').")
    cutmix_probability: float = Field(0.5, ge=0, le=1, description="Share of images that get a rectangle (authors').")
    box_area: tuple[float, float] = Field((0.02, 0.4), description="Range of the rectangle's share (authors').")

    @field_validator("box_area")
    @classmethod
    def _shares(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1] <= 0.7:
            raise ValueError("expected two shares in (0, .7], the smaller one first: larger ones hardly fit anywhere")
        return value


class UniMatchV2(Method):
    """The average's labels of the weak view teach two strong views with complementary channels."""

    Config = UniMatchV2Config
    paper_loss = ("hard", {})
    paper = "UniMatch V2, Yang et al., 2024"
    cost = "two networks: 2 forwards with gradient, one of them on a double batch, and 1 on a double batch without"
    keeps = "the average of the weights"

    def __init__(
        self,
        network: Network,
        supervised_loss: SupervisedLoss,
        pixel_loss: PixelLossModule | None,
        config: UniMatchV2Config,
        facts: Facts,
    ) -> None:
        super().__init__(network, supervised_loss, pixel_loss, config, facts)
        self.config: UniMatchV2Config = config
        self.student = network()
        check_stages(self.student, "UniMatch V2")
        self.teacher = teacher_of(self.student)
        self.confident: ConfidentPixels = ConfidentPixels(config.confidence, config.threshold, pixel_loss)
        self.streams = {
            "labelled": Stream(Weak(), "labelled"),
            "unlabelled": Stream(WeakStrong(2), "unlabelled"),
            "partner": Stream(WeakStrong(2), "unlabelled", partner="unlabelled"),
        }

    def notes(self, size: tuple[int, int]) -> list[str]:
        """What the mask of confident pixels makes of the loss."""
        return self.confident.notes(self.pixel_loss)

    def predictor(self) -> nn.Module:
        """The average."""
        return self.teacher

    def forward(self, batch: Mapping[str, Batch], progress: Progress) -> Step:
        """Half of: supervised loss plus the mean of the two strong views' losses."""
        labelled, a, b = batch["labelled"], batch["unlabelled"], batch["partner"]
        assert labelled.mask is not None
        config = self.config
        drawn = rectangle_masks(a.seed, a.size, views=2, probability=config.cutmix_probability, area=config.box_area)
        masks = [mask.to(a.image.device) for mask in drawn]  # (B,H,W) each, True: partner
        with torch.no_grad(), evaluating(self.teacher):
            weak, pasted = self.teacher(torch.cat([a.image, b.image])).chunk(2)  # (B,C,h,w) each
        z_l = self.student(labelled.image)
        strong = [paste(va, vb, mask) for va, vb, mask in zip(a.strong, b.strong, masks, strict=True)]
        views = zip(self._dropped(torch.cat(strong), a.seed).chunk(2), masks, strict=True)
        terms = [self._term(z, Mixed(weak, pasted, mask), paste(a.valid, b.valid, mask), progress) for z, mask in views]
        unsupervised = config.unsupervised_weight * (terms[0][0] + terms[1][0]) / 2
        supervised = self.supervised_loss(z_l, labelled.mask)
        metrics = {name: (value + terms[1][1][name]) / 2 for name, value in terms[0][1].items()}
        return Step({"supervised": supervised / 2, "unsupervised": unsupervised / 2}, metrics)

    def _dropped(self, image: Tensor, seeds: Tensor) -> Tensor:
        """Logits (2B,C,h,w) of both views, one after the other, each without the channels that the other has."""
        network: Any = self.student
        features = network.encode(image)
        channels = [each.shape[1] for each in levels(features)]
        first, second = complementary_masks(seeds, channels, undropped=self.config.undropped)
        masks = [torch.cat(pair) for pair in zip(first, second, strict=True)]  # (2B,D_i) each
        logits: Tensor = network.classify(network.decode(scale_channels(features, masks)))
        return logits

    def _term(
        self, student: Tensor, teacher: Mixed, valid: Tensor, progress: Progress
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean over all valid pixels, the unconfident ones counting as 0, and what is logged."""
        assert self.pixel_loss is not None
        size = (int(valid.shape[-2]), int(valid.shape[-1]))
        result = self.pixel_loss(student, teacher, size=size, valid=valid, progress=progress, maps=True)
        taught: tuple[Tensor, dict[str, Tensor]] = self.confident(result, valid)
        return taught

    def after_step(self, progress: Progress) -> None:
        """The average follows, weights and buffers; after the first step it is the student."""
        follow(self.teacher, self.student, warm_decay(progress.step, self.config.decay), buffers="average")
