"""Semi-supervised Semantic Segmentation with Directional Context-aware Consistency (CAC).

X. Lai, Z. Tian, L. Jiang, S. Liu, H. Zhao, L. Wang, J. Jia, CVPR 2021. Two crops of an unlabelled image overlap. Each
position in the overlap is seen in two contexts, and its two features should agree: InfoNCE pulls the less confident
one towards the more confident one. Negatives are positions with a different predicted class.

FPL does not apply, because no loss trains class scores on a pseudo label. `fuzzy_negatives` is our addition: negatives
are positions whose fuzzy positives (Alg. 1 of Qiao et al., CVPR 2023) are disjoint from the anchor's. With K = 1 this
is the authors' rule.

Unlike the authors' code, we compute InfoNCE as a log-sum-exp (the epsilon in their logarithm removes the gradient of
the hardest positions) and exclude padding from anchors and negatives. Crops use the run's scales instead of 0.8 to 2.
Negatives are all positions, as in both published settings, or a fixed number per image. `start` is a fraction of the
run. To use a tenth of the learning rate for the encoder, set `optim.head_lr_factor=10`. Each process computes its own
batch-norm statistics, separately for each crop.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fuzzyseg.data.views import Batch, CropPair, Stream, Weak, WeakStrong
from fuzzyseg.losses import PIXEL_LOSSES, assign_fuzzy_positives, masked_mean
from fuzzyseg.losses.contrast import info_nce, unit
from fuzzyseg.methods.base import Method, MethodConfig, Network, Progress, Step, setting
from fuzzyseg.methods.cac.bank import StepBank
from fuzzyseg.methods.cac.cells import meeting_cells, seeded_places
from fuzzyseg.networks.heads import decoder_channels, pooled_cells, projector
from fuzzyseg.ops.resize import whole_cells

_REASON = (
    "does not apply: this method trains no class scores on pseudo labels, which only select the negatives; to select "
    "them by FPL's sets, set method.fuzzy_negatives=true; otherwise omit --loss"
)
_COLOURS = WeakStrong(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, blur_sigma=(0.1, 1.1))


class CACConfig(MethodConfig):
    """Settings of CAC."""

    unsupervised_weight: float = setting(0.1, "authors' code", "lambda.", ge=0)
    temperature: float = setting(0.1, "authors' code", "tau.", gt=0)
    confidence: float = setting(0.75, "authors' code", "gamma: minimum confidence of a positive.", ge=0, le=1)
    start: float = setting(1 / 16, "authors' code, 5 of 80 epochs", "Fraction of the run before contrast.", ge=0, lt=1)
    bank_steps: int = setting(3, "authors' code, VOC R101", "Steps kept for negatives (R50: 2, Cityscapes: 1).", ge=1)
    negatives: int | None = setting(None, "authors' code", "Negatives per image and crop; None: all its cells.", ge=1)
    width: int = setting(128, "authors' code", "Channels of the projected features.", ge=2)
    cell: int = setting(8, "authors' code", "Side of a cell in pixels: at least the stride, or a multiple.", ge=1)
    fuzzy_negatives: bool = setting(False, "ours", "Use only negatives whose FPL sets share no class with the anchor.")
    fuzzy_threshold: float = setting(0.9, "FPL paper", "Threshold T of the fuzzy sets.", gt=0, le=1)


class _Cells(NamedTuple):
    """Values at a crop's n positions, with flips undone: features (B,n,D), classes (B,n) or (B,n,C), others (B,n)."""

    features: Tensor
    classes: Tensor
    confidence: Tensor
    valid: Tensor


class CAC(Method):
    """Consistency between the features of two overlapping crops, directed towards the more confident ones."""

    Config = CACConfig
    config: CACConfig
    refuses: ClassVar[dict[str, str]] = dict.fromkeys(PIXEL_LOSSES, _REASON)
    paper = "CAC, Lai et al., CVPR 2021"
    fuzzy = "does not apply"
    cost = "one network and a projector (0.1 M parameters), 3 forwards with gradient; a contrast of all cells"
    keeps = "features of 3 steps, 128 numbers per cell of 8x8 pixels"

    def __init__(self, network: Network, *rest: Any) -> None:
        super().__init__(network, *rest)
        config = self.config
        self.student = network()
        self.projector = projector(decoder_channels(self.student, "cac"), config.width)
        self.bank = StepBank(config.bank_steps, config.width, self.facts.classes if config.fuzzy_negatives else None)
        self.pool, side = pooled_cells(self.student, config.cell, "method.cell")
        pairs = CropPair(iou=(0.1, 1.0), stride=side, colours=_COLOURS)
        self.streams = {"labelled": Stream(Weak(), "labelled"), "unlabelled": Stream(pairs, "unlabelled")}

    def forward(self, batch: Mapping[str, Batch], progress: Progress) -> Step:
        """Compute the supervised loss and, from `start` on, the contrastive losses in both directions."""
        labelled, crops = batch["labelled"], batch["unlabelled"]
        assert crops.pair is not None and crops.boxes is not None and crops.flips is not None
        supervised = self.supervised_loss(self.student(labelled.image), labelled.mask)
        if progress.step < int(self.config.start * progress.total):
            return Step({"supervised": supervised})
        first, grid = self._cells(crops.image, crops.valid, crops.flips[:, 0])
        second, _ = self._cells(*crops.pair, crops.flips[:, 1])
        self._remember(crops.seed, first, second)
        one, pulled = self._pull(first, second, *meeting_cells(crops.boxes, crops.size, grid))
        two, pushed = self._pull(second, first, *meeting_cells(crops.boxes.flip(1), crops.size, grid))
        losses = {"supervised": supervised, "contrast": self.config.unsupervised_weight * (one + two)}
        return Step(losses, {"pulled": torch.cat([pulled, pushed]).float().mean()})

    def _cells(self, image: Tensor, valid: Tensor, flip: Tensor) -> tuple[_Cells, tuple[int, int]]:
        """Return one crop's features and predictions per position, and the size (h,w) of the grid."""
        network: Any = self.student
        pooled = F.avg_pool2d(network.decode(network.encode(image)), self.pool)
        features = unit(self.projector(pooled))  # (B,D,h,w)
        grid = (features.shape[2], features.shape[3])
        with torch.no_grad():
            logits = network.classify(pooled).float()
            confidence, label = torch.softmax(logits, 1).max(1, keepdim=True)
            sets = assign_fuzzy_positives(logits, threshold=self.config.fuzzy_threshold)
            shown = whole_cells(valid, grid).unsqueeze(1)
        maps = (features, sets if self.config.fuzzy_negatives else label, confidence, shown)
        turned = (torch.where(flip.view(-1, 1, 1, 1), each.flip(-1), each) for each in maps)
        return _Cells(*(each.flatten(2).movedim(1, 2).squeeze(2) for each in turned)), grid  # drops axes of size 1

    def _remember(self, seeds: Tensor, first: _Cells, second: _Cells) -> None:
        """Add the positions of both crops, or a random subset seeded by the sample, to the bank of negatives."""
        both = [torch.cat([first[part], second[part]]) for part in (0, 1, 3)]
        if self.config.negatives is not None:
            order = seeded_places(torch.cat([seeds, seeds ^ 1]), both[0].shape[1], self.config.negatives)
            both = [each[torch.arange(len(each), device=each.device)[:, None], order.to(each.device)] for each in both]
        self.bank.push(*(each.detach().flatten(0, 1) for each in both))

    def _pull(self, ours: _Cells, theirs: _Cells, place: Tensor, meets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss that pulls `ours` towards `theirs`, and a mask of pulled positions. See `meeting_cells`."""
        positive = theirs.features.detach().take_along_dim(place.unsqueeze(2), 1)
        confidence, shown = theirs.confidence.gather(1, place), theirs.valid.gather(1, place)
        surer = (confidence > self.config.confidence) & (ours.confidence < confidence)
        pulled = meets & ours.valid & shown & surer
        loss = info_nce(
            ours.features.flatten(0, 1),
            positive.flatten(0, 1),
            self.bank.features,
            temperature=self.config.temperature,
            kept=self.bank.valid,
            classes=(ours.classes.flatten(0, 1), self.bank.classes),
        )
        return masked_mean(loss, pulled.flatten()), pulled
