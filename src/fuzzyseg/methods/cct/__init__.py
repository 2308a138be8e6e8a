"""Semi-Supervised Semantic Segmentation with Cross-Consistency Training (CCT).

Y. Ouali, C. Hudelot, M. Tami, CVPR 2020. The features of unlabelled images are perturbed in seven ways. For each
perturbed copy, one auxiliary decoder learns to predict what the main decoder predicts from the clean features. The main
decoder learns only from labels, the encoder from both.

The architecture follows the port by CPS's authors, most likely the one behind the results in the CPS and FPL papers:
the features are the output of the network's decoder, the main decoder is its head, and auxiliary decoders are 1x1
convolutions. Everything else follows the paper.

Support for FPL is our addition: a pixel loss with the main decoder as teacher replaces each auxiliary squared error.

Unlike the authors' code, we exclude padding from the losses. Our I-VAT uses a probe that fp32 resolves, and its radius
is the nominal 2 (theirs is 0.007). G-Cutout cuts every region that is large enough, even one with few corners.
Auxiliary decoders are linear, whereas theirs end in a ReLU. As in their code, Con-Msk and Obj-Msk use class 0 if the
data has no background class. We do not implement weak labels, the pair-wise loss (which they report but never train),
the confidence mask (off by default) or decoders with PixelShuffle. Each process uses its own random numbers and
computes its own batch-norm statistics.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from pydantic import NonNegativeInt, field_validator
from torch import Tensor, nn
from torch.nn import functional as F

from fuzzyseg.data.views import Batch, Stream, Weak
from fuzzyseg.losses import masked_mean
from fuzzyseg.losses.consistency import kl_divergence, mean_squared_error
from fuzzyseg.methods.base import Method, MethodConfig, Network, Progress, Shares, Step, setting, sigmoid_ramp
from fuzzyseg.methods.cct.annealed import annealed_mask, annealed_threshold
from fuzzyseg.methods.cct.perturb import boxes_within, feature_drop, feature_noise, foreground, regions
from fuzzyseg.networks.heads import decoder_channels
from fuzzyseg.ops.gradient import adversarial_direction, small_differences


class CCTConfig(MethodConfig):
    """Settings of CCT."""

    unsupervised_weight: float | None = setting(None, "paper; ours", "lambda; None: 30, or 1 with a pixel loss.", ge=0)
    ramp_share: float = setting(0.1, "paper", "Fraction of the run over which lambda grows.", ge=0, le=1)
    decoders: tuple[NonNegativeInt, ...] = setting(
        (2, 6, 6, 2, 2, 6, 6), "paper",
        "Number of decoders for adversarial offsets, dropout, G-Cutout, Con-Msk (foreground kept), Obj-Msk (background "
        "kept), F-Drop and F-Noise (0 and six times 2 in the port).", min_length=7, max_length=7,
    )  # fmt: skip
    dropout: float = setting(0.5, "authors' code", "Fraction of channels that dropout zeroes.", ge=0, lt=1)
    cutout: float = setting(0.4, "authors' code", "Side of G-Cutout's box divided by that of the region.", gt=0, lt=1)
    drop_range: Shares = setting((0.7, 0.9), "authors' code", "Range of F-Drop's threshold u (from 0.6 in the paper).")
    noise: float = setting(0.3, "paper", "Bound of F-Noise's uniform noise.", gt=0)
    radius: float = setting(2.0, "authors' code", "epsilon: L2 norm of adversarial offsets.", gt=0)
    probe: float = setting(1.0, "ours", "xi: L2 norm of the probe (the authors' 1e-6 is lost in fp32).", gt=0)
    annealed: float | None = setting(
        None, "authors' code", "Last eta of annealed cross entropy (paper: 0.9; port: 0.99); None: off.", gt=0, le=1
    )

    @field_validator("decoders")
    @classmethod
    def _some(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not sum(value):
            raise ValueError(f"found {value}; expected at least one decoder")
        return value


class CCT(Method):
    """Cross-consistency training."""

    Config = CCTConfig
    config: CCTConfig
    paper = "CCT, Ouali et al., CVPR 2020"
    fuzzy = "variant"
    shares_forward = True
    cost = "one network, 2 forwards; 30 heads of a 1x1 convolution (0.2 M parameters), their predictions at image size"

    def __init__(self, network: Network, *rest: Any) -> None:
        super().__init__(network, *rest)
        self.student = network()
        width, count = decoder_channels(self.student, "cct"), sum(self.config.decoders)
        self.auxiliary = nn.ModuleList(nn.Conv2d(width, self.facts.classes, 1) for _ in range(count))
        published, weight = 30.0 if self.pixel_loss is None else 1.0, self.config.unsupervised_weight
        self.weight = published if weight is None else weight
        self.streams = {"labelled": Stream(Weak(), "labelled"), "unlabelled": Stream(Weak(), "unlabelled")}

    def forward(self, batch: Mapping[str, Batch], progress: Progress) -> Step:
        """Compute the supervised loss, and the auxiliary decoders' mean loss against the main decoder."""
        labelled, free = batch["labelled"], batch["unlabelled"]
        assert labelled.mask is not None
        net, mask = self.student, labelled.mask
        logits = net(labelled.image)
        if self.config.annealed is not None:
            eta = annealed_threshold(progress.step, progress.total, logits.shape[1], end=self.config.annealed)
            mask = annealed_mask(logits, mask, eta)
        features: Tensor = net.decode(net.encode(free.image))  # type: ignore[operator]  # (B,D,h,w)
        with torch.no_grad():
            target: Tensor = net.classify(features)  # type: ignore[operator]  # (B,C,h,w)
        terms: list[Tensor] = []
        for decoder, perturbed in zip(self.auxiliary, self.perturbed(features, target), strict=True):
            # the statistics describe the teacher, so they are equal for all decoders
            loss, stats = self.unlabelled_map(mean_squared_error, decoder(perturbed), target, free.valid, progress)
            terms.append(masked_mean(loss, free.valid))
        ramp = sigmoid_ramp(progress.step, round(self.config.ramp_share * progress.total))
        unsupervised = self.weight * ramp * torch.stack(terms).mean()
        return Step({"supervised": self.supervised_loss(logits, mask), "unsupervised": unsupervised}, stats)

    def perturbed(self, features: Tensor, target: Tensor) -> Iterator[Tensor]:
        """Yield the perturbed features (B,D,h,w) for each auxiliary decoder. target: the main decoder's logits."""
        config, kinds = self.config, self.config.decoders
        front = foreground(target, self.facts.background or 0, (features.shape[-2], features.shape[-1]))  # (B,h,w)
        number = regions(front) if kinds[2] else front.long()
        for decoder in self.auxiliary[: kinds[0]]:
            yield features + self.adversarial(decoder, features.detach())
        ways: tuple[Callable[[], Tensor], ...] = (
            lambda: F.dropout2d(features, config.dropout),
            lambda: features * ~boxes_within(number, config.cutout).unsqueeze(1),
            lambda: features * front.unsqueeze(1),
            lambda: features * ~front.unsqueeze(1),
            lambda: feature_drop(features, *config.drop_range),
            lambda: feature_noise(features, config.noise),
        )
        for count, way in zip(kinds[1:], ways, strict=True):
            yield from (way() for _ in range(count))

    def adversarial(self, decoder: nn.Module, features: Tensor) -> Tensor:
        """Return the I-VAT perturbation (B,D,h,w) of the features that changes this decoder's prediction most."""
        features = features.float()
        with torch.no_grad(), small_differences(features.device):
            clean = decoder(features)
        every = torch.ones_like(clean[:, 0], dtype=torch.bool)

        def divergence(offset: Tensor) -> Tensor:
            return kl_divergence(decoder(features + offset), clean, size=every.shape[1:], valid=every)

        noise = torch.rand_like(features) - 0.5
        return self.config.radius * adversarial_direction(divergence, noise, probe=self.config.probe)
