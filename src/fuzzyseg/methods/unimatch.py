"""Revisiting Weak-to-Strong Consistency in Semi-Supervised Semantic Segmentation (UniMatch).

L. Yang, L. Qi, L. Feng, W. Zhang, Y. Shi, CVPR 2023. UniMatch extends FixMatch with a second, independent strong view
and with feature perturbation (half of the channels of the weak view's encoder features are dropped). Confident
predictions for the weak view supervise all three.

Unlike the authors' code, we drop channels from every feature map that the encoder passes to the decoder, so that any
decoder works (theirs reads two maps), and paste rectangles from another image (theirs pastes another crop of the same
image, because two samplers share a seed). Strong views use our jitter and blur (`data/views.py`), and padding has the
mean colour instead of black. Rectangles and dropped channels depend only on the sample's seed. Each process computes
its own batch-norm statistics and the network's own dropout masks.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fuzzyseg.data.views import Batch, WeakStrong
from fuzzyseg.losses import CONFIDENCE, Confidence, ConfidentPixels
from fuzzyseg.methods.base import Method, MethodConfig, Network, Progress, RectangleArea, Step, mixing_streams, setting
from fuzzyseg.networks.heads import check_stages
from fuzzyseg.ops.channel_dropout import levels, scale_channels
from fuzzyseg.ops.mix import Mixed, paste, rectangle_masks
from fuzzyseg.ops.module_mode import evaluating

_STREAM = 0x5DEECE66  # separates this random stream from the sample's others


class UniMatchConfig(MethodConfig):
    """Settings of UniMatch."""

    threshold: float = setting(0.95, "paper", "Minimum probability of a confident pixel.")
    confidence: Confidence = setting(None, "ours", CONFIDENCE)
    image_weight: float = setting(0.25, "authors' code", "Weight of each of the two strong views.", ge=0)
    feature_weight: float = setting(0.5, "authors' code", "Weight of the perturbed features.", ge=0)
    channel_dropout: float = setting(0.5, "authors' code", "Fraction of dropped channels.", ge=0, lt=1)
    cutmix_probability: float = setting(0.5, "authors' code", "Fraction of images with a rectangle.", ge=0, le=1)
    box_area: RectangleArea = setting((0.02, 0.4), "authors' code", "Range of the rectangle's fraction of the image.")


class UniMatch(Method):
    """The weak view supervises two strong views and the weak view with dropped channels."""

    Config = UniMatchConfig
    config: UniMatchConfig
    paper_loss = ("hard", {})
    paper = "UniMatch, Yang et al., CVPR 2023"
    shares_forward = True
    cost = "one network: 2 forwards on double batches, the decoder twice in the first, and 1 without gradient"

    def __init__(self, network: Network, *rest: Any) -> None:
        super().__init__(network, *rest)
        self.student = network()
        check_stages(self.student, "UniMatch")
        self.confident = ConfidentPixels(self.config.confidence, self.config.threshold, self.pixel_loss)
        self.streams = mixing_streams(WeakStrong(2))

    def forward(self, batch: Mapping[str, Batch], progress: Progress) -> Step:
        """Compute half the sum of the supervised loss and the weighted losses of strong views and features."""
        labelled, a, b = batch["labelled"], batch["unlabelled"], batch["partner"]
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
        loss, mixed = self.pixel_loss, [Mixed(weak, pasted, mask) for mask in masks]
        first, stats_1 = self.confident(loss, z_1, mixed[0], valid[0], progress)
        second, stats_2 = self.confident(loss, z_2, mixed[1], valid[1], progress)
        features, _ = self.confident(loss, perturbed[count:], weak, a.valid, progress)  # no rectangle is pasted here
        losses = {
            "supervised": self.supervised_loss(plain[:count], labelled.mask),
            "strong_1": config.image_weight * first,
            "strong_2": config.image_weight * second,
            "features": config.feature_weight * features,
        }
        metrics = {name: (value + stats_2[name]) / 2 for name, value in stats_1.items()}
        return Step({name: value / 2 for name, value in losses.items()}, metrics)

    def _perturbed(self, image: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor]:
        """Return the images' logits and those computed after dropping feature channels, decoded in one batch."""
        network: Any = self.student
        features = network.encode(image)
        channels = [each.shape[1] for each in levels(features)]
        dropped = scale_channels(features, channel_masks(seeds, channels, self.config.channel_dropout))
        plain, perturbed = network.classify(network.decode(join(features, dropped))).chunk(2)
        return plain, perturbed


def channel_masks(seeds: Tensor, channels: Sequence[int], probability: float = 0.5) -> list[Tensor]:
    """Sample a dropout mask (B,D_i) for each level: 0 with `probability`, otherwise 1 / (1 - probability).

    seeds: (B,) int64 on the CPU, like the masks. The masks depend only on these seeds.
    """
    generators = [torch.Generator().manual_seed(seed ^ _STREAM) for seed in seeds.tolist()]
    drawn = [torch.stack([torch.rand(count, generator=g) for g in generators]) for count in channels]
    return [(values >= probability).float() / (1 - probability) for values in drawn]


def join(first: Any, second: Any) -> Any:
    """Concatenate the features of two batches along the batch axis."""
    if first is None or isinstance(first, Tensor):
        return None if first is None else torch.cat([first, second])
    parts = [join(a, b) for a, b in zip(first, second, strict=True)]
    return tuple(parts) if isinstance(first, tuple) else parts
