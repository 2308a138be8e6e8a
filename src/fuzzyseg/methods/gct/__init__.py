"""Guided Collaborative Training for Pixel-wise Semi-Supervised Learning (GCT).

Z. Ke, D. Qiu, K. Li, Q. Yan, R. W. H. Lau, ECCV 2020. Two networks with different initial weights see the same images,
and a flaw detector predicts the error of each network at every pixel. Where one network is better, the other learns
from it (dynamic consistency); where both are bad, the detector acts as a critic whose output they minimise (flaw
correction). The detector is trained on labelled images with the difference between prediction and label.

Dynamic consistency regresses a full distribution, so support for FPL is our addition: on pixels where the other network
is better, a pixel loss with that network's logits as teacher replaces it. The comparison of flaws, which acts as the
confidence mask, and the flaw correction are unchanged.

The authors update the three networks in turn. We update all of them in one step with gradients at the same weights,
with detached targets and a frozen critic. Unlike them, we exclude void and padding (they treat void as half wrong), set
a map without flaws to 0 (theirs falls below 0), and update the detector's batch-norm statistics only in forward passes
that train it. For crops up to 91 pixels, the detector's output is a single value, so neither network learns from the
other. Each process computes its own batch-norm statistics.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fuzzyseg.data.views import Batch, Stream, Weak
from fuzzyseg.losses import masked_mean
from fuzzyseg.losses.base import at_size, local_mean
from fuzzyseg.losses.consistency import mean_squared_error
from fuzzyseg.losses.supervised import VOID
from fuzzyseg.methods.base import Method, MethodConfig, Network, Progress, Role, Step, critic, setting, sigmoid_ramp
from fuzzyseg.methods.gct.detector import FlawDetector
from fuzzyseg.methods.gct.flaw_map import comparable, compare_flaws, flaw_target
from fuzzyseg.networks.heads import check_different
from fuzzyseg.ops.gradient import frozen
from fuzzyseg.ops.module_mode import without_dropout


class GCTConfig(MethodConfig):
    """Settings of GCT."""

    unsupervised_weight: float | None = setting(
        None, "paper; ours", "Consistency weight; None: 100 (paper, mean over classes), or 1 with a pixel loss.", ge=0
    )
    correction_weight: float = setting(1.0, "paper", "Weight of the flaw correction.", ge=0)
    detector_weight: float = setting(10.0, "authors' scripts", "Weight of the detector's loss.", ge=0)
    ramp_share: float = setting(0.1, "authors' scripts", "Fraction of the run with a growing weight.", ge=0, le=1)
    xi: float = setting(0.6, "paper", "Minimum flaw of a bad pixel.", gt=0, lt=1)
    clip: float = setting(0.1, "authors' code", "Images whose largest flaw is at most this value have none.", ge=0)
    mu: float = setting(0.5, "paper", "Scale of the detector's target; no effect once it is stretched.", gt=0, le=1)
    nu: int = setting(1, "paper", "Number of dilations and blurs of the target.", ge=0)
    detector_width: int = setting(64, "authors' code", "Channels of the detector's first layer.", ge=2)
    detector_lr: float = setting(1e-4, "paper", "Its Adam learning rate, times the run's schedule.", gt=0)


class GCT(Method):
    """Guided collaborative training."""

    Config = GCTConfig
    config: GCTConfig
    learners: ClassVar[int] = 2
    paper = "GCT, Ke et al., ECCV 2020"
    fuzzy = "variant"
    shares_forward = True
    cost = "two networks, 2 forwards each; a detector of 8.3 M parameters, 4 forwards at image size"
    unsharded = "gets other gradients when its weights are sharded"

    def __init__(self, network: Network, *rest: Any) -> None:
        super().__init__(network, *rest)
        self.first, self.second = network(), network()
        check_different(self.first, self.second, "GCT")
        self.detector = FlawDetector(self.facts.channels, self.facts.classes, self.config.detector_width)
        published, weight = 100.0 if self.pixel_loss is None else 1.0, self.config.unsupervised_weight
        self.weight = published if weight is None else weight
        self.streams = {"labelled": Stream(Weak(), "labelled"), "unlabelled": Stream(Weak(), "unlabelled")}

    def notes(self, size: tuple[int, int]) -> list[str]:
        """Return a note if crops are too small for the detector to tell which network is better."""
        note = f"crops up to {self.detector.one_cell} pixels are one cell of GCT's detector: --loss has no effect"
        return [note] if max(size) <= self.detector.one_cell else []

    def predictor(self) -> nn.Module:
        """Return the first network."""
        return self.first

    def pair(self) -> tuple[nn.Module, nn.Module]:
        """Return (student, teacher) for the direction in which the first network learns from the second."""
        return self.first, self.second

    def roles(self) -> dict[str, Role]:
        """Return the roles backbone, head and detector (Adam with its own learning rate)."""
        return self.roles_beside({"detector": critic(self.detector, self.config.detector_lr)})

    def forward(self, batch: Mapping[str, Batch], progress: Progress) -> Step:
        """Compute the supervised, dynamic consistency, flaw correction and detector losses."""
        labelled, free = batch["labelled"], batch["unlabelled"]
        assert labelled.mask is not None
        image, valid = torch.cat([labelled.image, free.image]), torch.cat([labelled.valid, free.valid])
        z = [self.first(image), self.second(image)]  # (B,C,h,w), labelled first
        q = [at_size(logits, free.size).softmax(1) for logits in z]  # (B,C,H,W)
        flaws = [self.detector(image, one.detach()).float() for one in q]  # (B,1,H,W), used to train the detector
        learns, both_bad = self.compare(*flaws)
        with frozen(self.detector), without_dropout(self.detector, update_statistics=False):
            critics = [self.detector(image, one).float().squeeze(1) for one in q]
        terms: dict[str, list[Tensor]] = {"supervised": [], "consistency": [], "correction": [], "detector": []}
        stats: dict[str, Tensor] = {}
        count, known = len(labelled.mask), labelled.mask != VOID
        for one in (0, 1):
            student, teacher = z[one], z[1 - one].detach()
            loss, loss_stats = self.unlabelled_map(mean_squared_error, student, teacher, valid, progress)
            stats = {k: v / 2 + stats.get(k, 0) for k, v in loss_stats.items()}
            target = flaw_target(q[one][:count], labelled.mask, mu=self.config.mu, nu=self.config.nu)
            error = (flaws[one][:count] - target).square().squeeze(1)
            terms["supervised"].append(self.supervised_loss(student[:count], labelled.mask))
            terms["consistency"].append(masked_mean(loss * learns[one], valid))
            terms["correction"].append(masked_mean(critics[one].square() * both_bad, valid))
            terms["detector"].append(masked_mean(error, known) / 2)
        ramp = sigmoid_ramp(progress.step, round(self.config.ramp_share * progress.total))
        weights = {"consistency": self.weight * ramp, "correction": self.config.correction_weight}
        weights["detector"] = self.config.detector_weight
        losses = {name: weights.get(name, 1.0) * torch.stack(pair).sum() for name, pair in terms.items()}
        shares = {"first_learns": learns[0], "second_learns": learns[1], "both_bad": both_bad}
        return Step(losses, {**stats, **{name: local_mean(where.float(), valid) for name, where in shares.items()}})

    def compare(self, first: Tensor, second: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """Return where the first network learns, where the second learns, and where both are bad: (B,H,W) bool.

        first, second: flaw maps (B,1,H,W).
        """
        maps = (comparable(flaw.detach(), clip=self.config.clip) for flaw in (first, second))
        one, two, both = (where.squeeze(1) for where in compare_flaws(*maps, xi=self.config.xi))
        return (one, two), both
