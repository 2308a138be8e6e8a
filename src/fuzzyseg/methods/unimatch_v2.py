"""UniMatch V2: Pushing the Limit of Semi-Supervised Semantic Segmentation.

L. Yang, Z. Zhao, H. Zhao, arXiv 2410.10777. An EMA of the network labels the weak view. Two strong views, each with its
own colour augmentation and pasted rectangle, learn from these labels. Complementary halves of the encoder channels are
dropped in the two views; for half of the images, none are. The paper's network is DINOv2 with a DPT decoder
(`network.arch=DPT`), where one mask multiplies all four levels; if the encoder's levels differ in width, each level has
its own mask, as the authors advise.

Unlike the authors' code, we take rectangles from a partner stream (they reverse the batch, which mixes the middle image
of an odd batch with itself and makes pairs depend on the number of processes) and decide at random for each image
whether to drop channels (they always do so for half of a batch). smp's DPT reads the prefix tokens, whose channels are
dropped like those of their level; the authors' DPT does not read them (`network.decoder_readout=ignore`). smp's DPT
also reads its levels before the encoder's last norm instead of after it, and has batch norm in the decoder. Strong
views use our jitter and blur (`data/views.py`), and padding has the mean colour instead of black. Each process computes
its own batch-norm statistics and the network's own dropout masks.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fuzzyseg.data.views import Batch, WeakStrong
from fuzzyseg.losses import CONFIDENCE, Confidence, ConfidentPixels
from fuzzyseg.methods.base import Method, MethodConfig, Network, Progress, RectangleArea, Step, mixing_streams, setting
from fuzzyseg.networks.heads import check_stages
from fuzzyseg.ops.channel_dropout import levels, scale_channels
from fuzzyseg.ops.ema import follow, teacher_of, warm_decay
from fuzzyseg.ops.mix import Mixed, paste, rectangle_masks
from fuzzyseg.ops.module_mode import evaluating
from fuzzyseg.ops.sample_rng import uniform

_WHOLE, _LEVEL = 16, 17  # `purpose` arguments of `uniform`; level i uses _LEVEL + i


class UniMatchV2Config(MethodConfig):
    """Settings of UniMatch V2."""

    threshold: float = setting(0.95, "authors' code", "Minimum probability of a confident pixel.")
    confidence: Confidence = setting(None, "ours", CONFIDENCE)
    unsupervised_weight: float = setting(1.0, "authors' code", "Weight of the mean of both views' losses.", ge=0)
    undropped: float = setting(0.5, "authors' code", "Fraction of images that drop no channel.", ge=0, le=1)
    decay: float = setting(0.996, "authors' code", "Decay of the average, after warm-up 1 - 1/(step + 1).", ge=0, lt=1)
    cutmix_probability: float = setting(0.5, "authors' code", "Fraction of images with a rectangle.", ge=0, le=1)
    box_area: RectangleArea = setting((0.02, 0.4), "authors' code", "Range of the rectangle's fraction of the image.")


class UniMatchV2(Method):
    """An EMA teacher supervises two strong views with complementary channel dropout."""

    Config = UniMatchV2Config
    config: UniMatchV2Config
    paper_loss = ("hard", {})
    paper = "UniMatch V2, Yang et al., 2024"
    cost = "two networks: 2 forwards with gradient, one of them on a double batch, and 1 on a double batch without"
    keeps = "the average of the weights"

    def __init__(self, network: Network, *rest: Any) -> None:
        super().__init__(network, *rest)
        self.student = network()
        check_stages(self.student, "UniMatch V2")
        self.teacher = teacher_of(self.student)
        self.confident = ConfidentPixels(self.config.confidence, self.config.threshold, self.pixel_loss)
        self.streams = mixing_streams(WeakStrong(2))

    def predictor(self) -> nn.Module:
        """Return the EMA teacher."""
        return self.teacher

    def forward(self, batch: Mapping[str, Batch], progress: Progress) -> Step:
        """Compute half the sum of the supervised loss and the weighted mean of the two strong views' losses."""
        labelled, a, b = batch["labelled"], batch["unlabelled"], batch["partner"]
        config = self.config
        drawn = rectangle_masks(a.seed, a.size, views=2, probability=config.cutmix_probability, area=config.box_area)
        masks = [mask.to(a.image.device) for mask in drawn]  # (B,H,W) each, True: partner
        with torch.no_grad(), evaluating(self.teacher):
            weak, pasted = self.teacher(torch.cat([a.image, b.image])).chunk(2)  # (B,C,h,w) each
        z_l = self.student(labelled.image)
        strong = [paste(va, vb, mask) for va, vb, mask in zip(a.strong, b.strong, masks, strict=True)]
        views = zip(self._dropped(torch.cat(strong), a.seed).chunk(2), masks, strict=True)
        terms = [
            self.confident(self.pixel_loss, z, Mixed(weak, pasted, mask), paste(a.valid, b.valid, mask), progress)
            for z, mask in views
        ]
        unsupervised = config.unsupervised_weight * (terms[0][0] + terms[1][0]) / 2
        supervised = self.supervised_loss(z_l, labelled.mask)
        metrics = {name: (value + terms[1][1][name]) / 2 for name, value in terms[0][1].items()}
        return Step({"supervised": supervised / 2, "unsupervised": unsupervised / 2}, metrics)

    def _dropped(self, image: Tensor, seeds: Tensor) -> Tensor:
        """Return the logits (2B,C,h,w) of both views, first view first, with complementary channels dropped."""
        network: Any = self.student
        features = network.encode(image)
        channels = [each.shape[1] for each in levels(features)]
        first, second = complementary_masks(seeds, channels, undropped=self.config.undropped)
        masks = [torch.cat(pair) for pair in zip(first, second, strict=True)]  # (2B,D_i) each
        logits: Tensor = network.classify(network.decode(scale_channels(features, masks)))
        return logits

    def after_step(self, progress: Progress) -> None:
        """Update the teacher's weights and buffers by EMA; after the first step it equals the student."""
        follow(self.teacher, self.student, warm_decay(progress.step, self.config.decay), buffers="average")


def complementary_masks(
    seeds: Tensor, channels: Sequence[int], *, undropped: float = 0.5
) -> tuple[list[Tensor], list[Tensor]]:
    """Sample channel masks (B,D_i) of 0 and 2 per level for two views; the two masks sum to 2 in every channel.

    Levels of equal width, as in a vision transformer, share one mask; otherwise each level has its own. With
    probability `undropped`, both masks of a sample are 1. seeds: (B,) int64, one per sample, on the CPU, like the
    masks.
    """
    kept_whole = uniform(seeds, (1,), purpose=_WHOLE) < undropped  # (B,1)
    shared = len(set(channels)) == 1
    first = [
        torch.where(kept_whole, 1.0, 2.0 * (uniform(seeds, (count,), purpose=_LEVEL + level) < 0.5))
        for level, count in enumerate(channels[:1] if shared else channels)
    ]
    if shared:
        first = first * len(channels)
    return first, [2 - mask for mask in first]
