"""Selection of images to label next, by uncertainty and by dissimilarity to each other and to labelled images."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fuzzyseg.data import VOID
from fuzzyseg.data.check.duplicates import near_pairs
from fuzzyseg.data.check.files import FileInfo, inspect_file
from fuzzyseg.inference.model_card import ModelCard
from fuzzyseg.inference.outputs import Band, Fuzzy
from fuzzyseg.inference.predict_image import ImagePrediction
from fuzzyseg.inference.predictor import Predictor, Protocol

PARTS = ("fuzzy", "entropy", "disagreement")
"""Components of a pixel's uncertainty, which is their mean."""


@dataclass(frozen=True)
class Candidate:
    """An image file: its fingerprint, unit feature vector (D,) and mean of each measured component (see `PARTS`)."""

    info: FileInfo
    feature: Tensor
    parts: dict[str, float]

    @property
    def score(self) -> float:
        """Uncertainty of the image, in [0, 1]."""
        return sum(self.parts.values()) / len(self.parts)


class _Observed(nn.Module):
    """Records a network's last encoder features (probabilities without an encoder), averaged per image: (B,D)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network: Any = network
        self.divisor, self.seen = int(getattr(network, "divisor", 1)), list[Tensor]()

    def forward(self, image: Tensor) -> Tensor:
        if hasattr(self.network, "encode"):
            features = self.network.encode(image)
            last = (features[0] if isinstance(features, tuple) else features)[-1]  # DPT also returns prefix tokens
            logits = self.network.classify(self.network.decode(features))
        else:
            logits = self.network(image)
            last = logits.softmax(1)
        self.seen.append(last.float().flatten(2).mean(2))
        return logits  # type: ignore[no-any-return]


class Surveyor:
    """Measures the uncertainty of images. networks: the predicting one, and the method's second one, if any."""

    def __init__(self, networks: Sequence[nn.Module], card: ModelCard, device: torch.device, fuzzy: Fuzzy) -> None:
        self.card, self._observed, protocol = card, _Observed(networks[0]), Protocol(blend=True)
        predictors = [Predictor(network, card, device) for network in (self._observed, *networks[1:])]
        self.passes = [ImagePrediction(p, Path(), ["k", "overlay"], protocol, fuzzy, False) for p in predictors]

    def maps(self, file: Path) -> Iterator[tuple[Band, Tensor, Tensor]]:
        """Yield an image from top to bottom as (band, K (rows,W), maps (2,rows,W) or (3,rows,W)). Raises DataError.

        The maps, in [0, 1]: whether K is above 1, entropy over log C, and whether the networks' labels differ.
        """
        for band, *others in zip(*(each.bands(file)[1] for each in self.passes), strict=True):
            k = band.sets.sum(0)
            entropy = torch.special.entr(band.calibrated).sum(0) / math.log(len(self.card.classes))
            yield band, k, torch.stack([(k > 1).float(), entropy, *((band.labels != o.labels).float() for o in others)])

    def measure(self, file: Path) -> Candidate:
        """Measure an image file; pixels without data count as certain. Raises DataError."""
        info = inspect_file(file, "image")
        self._observed.seen.clear()
        sums, pixels = torch.zeros(1 + len(self.passes), dtype=torch.float64), 0
        for band, _, maps in self.maps(file):
            known = torch.from_numpy(band.mask != VOID).to(maps.device)
            sums += maps[:, known].sum(1).cpu()
            pixels += known.numel()
        feature = F.normalize(torch.cat(self._observed.seen).mean(0), dim=0).cpu()
        return Candidate(info, feature, dict(zip(PARTS, (sums / pixels).tolist(), strict=False)))


def choose(
    pool: Sequence[Candidate], labelled: Sequence[Candidate], count: int, held_out: Sequence[FileInfo] = ()
) -> list[int]:
    """Choose up to `count` images by greedy k-centre selection weighted by score; return their pool indices in order.

    Each step chooses the largest product of score and feature distance to the nearest labelled or chosen image
    (farthest-first traversal: T. F. Gonzalez, "Clustering to minimize the maximum intercluster distance", Theoretical
    Computer Science 38, 1985). Near-duplicates of labelled, chosen and validation (`held_out`) images are skipped, so
    fewer than `count` may be returned.
    """
    features = torch.stack([each.feature for each in pool])  # (N,D)
    scores = torch.tensor([each.score for each in pool])
    nearest, free = torch.full((len(pool),), 2.0), torch.ones(len(pool), dtype=torch.bool)  # distance <= 2
    infos, chosen = [each.info for each in pool], list[int]()
    if labelled:
        nearest = torch.cdist(features, torch.stack([each.feature for each in labelled])).amin(1)
    if known := [*(each.info for each in labelled), *held_out]:
        free[[place for _, place in near_pairs(known, infos)]] = False
    while len(chosen) < count and free.any():
        pick = int((scores * nearest).masked_fill(~free, -1).argmax())
        chosen.append(pick)
        nearest = torch.minimum(nearest, (features - features[pick]).norm(dim=1))
        free[[pick, *(place for _, place in near_pairs([infos[pick]], infos))]] = False
    return chosen
