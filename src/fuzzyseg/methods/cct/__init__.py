"""Semi-Supervised Semantic Segmentation with Cross-Consistency Training.

Y. Ouali, C. Hudelot, M. Tami, CVPR 2020. The features of unlabelled images are perturbed in seven ways; auxiliary
decoders, one a copy, must predict from them what the main decoder predicts from the clean features. The main decoder
learns from labels alone, the features from both.

The form is that of the port by CPS's authors, most likely the one behind the tables of CPS and FPL: features are the
network's decoder's, the main decoder is its head, an auxiliary one a 1x1 convolution. All else is the paper's.

FPL here is ours: a pixel loss, taught by the main decoder, takes the place of each auxiliary decoder's squared error.

Where we leave the authors' code, and why. Padding is not trained on. I-VAT is found at a probe that fp32 resolves and
has its radius (theirs is .007 in the place of 2). G-Cutout cuts every region large enough, also one with few corners.
Auxiliary decoders are linear (theirs end in a ReLU). Con-Msk and Obj-Msk take the data's background class, and class 0,
as the authors do, where it has none. Not implemented: weak labels, the pair-wise loss (reported, never trained), the
confidence mask (off by default), decoders with PixelShuffle. Per process: all that is random, batch-norm statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from pydantic import Field, NonNegativeInt, field_validator
from torch import Tensor, nn
from torch.nn import functional as F

from fuzzyseg.data.views import Batch, Stream, Weak
from fuzzyseg.losses import masked_mean
from fuzzyseg.losses.consistency import kl_divergence, squared_error
from fuzzyseg.methods.base import Facts, Method, MethodConfig, Network, PixelLossModule, Progress, Step, SupervisedLoss
from fuzzyseg.methods.cct.annealed import annealed_mask, annealed_threshold
from fuzzyseg.methods.cct.perturb import feature_drop, feature_noise, foreground
from fuzzyseg.methods.cct.regions import boxes_within, regions
from fuzzyseg.ops.gradient import adversarial_direction, small_differences
from fuzzyseg.ops.ramp import sigmoid_ramp


class CCTConfig(MethodConfig):
    """Settings of CCT."""

    unsupervised_weight: float | None = Field(None, ge=0, description="lambda; None: 30 (paper), 1 with a pixel loss.")
    ramp_share: float = Field(0.1, ge=0, le=1, description="Share of the run over which lambda grows (paper).")
    decoders: tuple[NonNegativeInt, ...] = Field(
        (2, 6, 6, 2, 2, 6, 6), min_length=7, max_length=7,
        description="Decoders behind adversarial offsets, dropout, G-Cutout, Con-Msk (foreground kept), Obj-Msk "
        "(background kept), F-Drop and F-Noise (paper; the port: 0 and six times 2).",
    )  # fmt: skip
    dropout: float = Field(0.5, ge=0, lt=1, description="Share of channels that dropout drops (authors' code).")
    cutout: float = Field(0.4, gt=0, lt=1, description="Sides of a box of G-Cutout, of the region's (authors' code).")
    drop_range: tuple[float, float] = Field((0.7, 0.9), description="u of F-Drop (authors' code; paper: from .6).")
    noise: float = Field(0.3, gt=0, description="F-Noise is uniform up to it (paper).")
    radius: float = Field(2.0, gt=0, description="eps, L2 norm of adversarial offsets (authors').")
    probe: float = Field(1.0, gt=0, description="xi, L2 norm of their probe (ours; authors' 1e-6 is lost in fp32).")
    annealed: float | None = Field(
        None, gt=0, le=1, description="Last eta of abCE (paper: .9; the port: .99); None: CE."
    )

    @field_validator("decoders", "drop_range")
    @classmethod
    def _something(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not sum(value) or (len(value) == 2 and not 0 < value[0] <= value[1] <= 1):
            raise ValueError(f"found {value}; expected a decoder at least, and a range within (0, 1]")
        return value


class CCT(Method):
    """Cross-consistency training."""

    Config = CCTConfig
    paper = "CCT, Ouali et al., CVPR 2020"
    fuzzy = "variant"
    shares_forward = True
    cost = "one network, 2 forwards; 30 heads of a 1x1 convolution (.2 M parameters), their predictions at image size"

    def __init__(
        self,
        network: Network,
        supervised_loss: SupervisedLoss,
        pixel_loss: PixelLossModule | None,
        config: CCTConfig,
        facts: Facts,
    ) -> None:
        super().__init__(network, supervised_loss, pixel_loss, config, facts)
        self.config: CCTConfig = config
        self.student = network()
        if not {"encode", "decode", "classify", "decoder_channels"} <= set(dir(self.student)):
            raise ValueError("cct needs a network with encode, decode, classify, decoder_channels, as a Segmenter has")
        width: int = self.student.decoder_channels  # type: ignore[assignment]
        self.auxiliary = nn.ModuleList(nn.Conv2d(width, facts.classes, 1) for _ in range(sum(config.decoders)))
        published = 30.0 if pixel_loss is None else 1.0
        self.weight = published if config.unsupervised_weight is None else config.unsupervised_weight
        self.streams = {"labelled": Stream(Weak(), "labelled"), "unlabelled": Stream(Weak(), "unlabelled")}

    def forward(self, batch: Mapping[str, Batch], progress: Progress) -> Step:
        """Supervised loss plus lambda times the mean disagreement of the auxiliary decoders with the main one."""
        labelled, free = batch["labelled"], batch["unlabelled"]
        assert labelled.mask is not None
        net, mask, size = self.student, labelled.mask, free.size
        logits = net(labelled.image)
        if self.config.annealed is not None:
            eta = annealed_threshold(progress.step, progress.total, logits.shape[1], end=self.config.annealed)
            mask = annealed_mask(logits, mask, eta)
        features: Tensor = net.decode(net.encode(free.image))  # type: ignore[operator]  # (B,D,h,w)
        with torch.no_grad():
            target: Tensor = net.classify(features)  # type: ignore[operator]  # (B,C,h,w)
        terms, stats = [], {}
        for decoder, perturbed in zip(self.auxiliary, self.perturbed(features, target), strict=True):
            z = decoder(perturbed)
            if self.pixel_loss is None:
                loss = squared_error(z, target, size=size, valid=free.valid) / target.shape[1]
            else:
                result = self.pixel_loss(z, target, size=size, valid=free.valid, progress=progress)
                loss, stats = result.loss, result.stats  # the teacher's, so the same for all
            terms.append(masked_mean(loss, free.valid))
        ramp = sigmoid_ramp(progress.step, round(self.config.ramp_share * progress.total))
        unsupervised = self.weight * ramp * torch.stack(terms).mean()
        return Step({"supervised": self.supervised_loss(logits, mask), "unsupervised": unsupervised}, stats)

    def perturbed(self, features: Tensor, target: Tensor) -> Iterator[Tensor]:
        """The features (B,D,h,w) as each auxiliary decoder sees them, in their order. target: the main one's logits."""
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
        """I-VAT: the offset (B,D,h,w) of the features that changes this decoder's prediction most."""
        features = features.float()
        with torch.no_grad(), small_differences(features.device):
            clean = decoder(features)
        every = torch.ones_like(clean[:, 0], dtype=torch.bool)

        def divergence(offset: Tensor) -> Tensor:
            return kl_divergence(decoder(features + offset), clean, size=every.shape[1:], valid=every)

        noise = torch.rand_like(features) - 0.5
        return self.config.radius * adversarial_direction(divergence, noise, probe=self.config.probe)
