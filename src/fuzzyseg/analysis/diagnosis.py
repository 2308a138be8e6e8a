"""Statistics of the fuzzy sets on labelled images: coverage, K, the three cases, calibration and confusions."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fuzzyseg.analysis.pixels import MISSED, RESCUED, RIGHT, PixelMaps
from fuzzyseg.analysis.sums import Sums

BINS = 20
"""Number of bins in the histograms of entropy and weight, both in [0, 1]."""

CONFIDENCE_BINS = 15
"""Number of bins in the reliability diagram; a confidence c is in bin ceil(15 c). C. Guo, G. Pleiss, Y. Sun, K. Q.
Weinberger, "On Calibration of Modern Neural Networks", ICML 2017."""


@dataclass(frozen=True)
class Diagnosis(Sums):
    """Statistics summed over labelled pixels.

    pixels (3,C): pixel counts by case (1 to 3) and K (1 to C). entropy, weight (C,): sums by K. entropies, weights
    (C,20): histograms by K. score, lift (3,2): the maps of the same names in `PixelMaps`, summed by case, for the hard
    and the fuzzy loss; NaN if not measured. reliability (3,15): number of pixels, sum of confidences and number of
    correct pixels in each confidence bin. confusion (2,C,C): pixel counts by true class and pseudo label, for all
    pixels and for case 2.
    """

    pixels: Tensor
    entropy: Tensor
    weight: Tensor
    entropies: Tensor
    weights: Tensor
    score: Tensor
    lift: Tensor
    reliability: Tensor
    confusion: Tensor

    def brief(self) -> dict[str, Any]:
        """Return the statistics logged during training: coverage, top-1, K, ECE, and each case's share and score."""
        total = max(1, int(self.pixels.sum()))
        right, rescued, _ = self.pixels.sum(1).tolist()
        pixels, confidence, hits = self.reliability
        return {
            "coverage": (right + rescued) / total,
            "top1": right / total,
            "k_histogram": [count / total for count in self.pixels.sum(0).tolist()],
            # expected calibration error (ECE), Guo et al. (2017)
            "ece": float((confidence - hits).abs().sum() / pixels.sum()) if pixels.sum() else None,
            "cases": {case: {"share": row["share"], "score": row["score"]} for case, row in self._cases().items()},
        }

    def numbers(self) -> dict[str, Any]:
        """Return all statistics as JSON-serialisable values: fractions of the labelled pixels, and class indices."""
        total, k = int(self.pixels.sum()), torch.arange(1, self.pixels.shape[1] + 1)
        return {
            "pixels": total,
            **self.brief(),
            "mean_k": float((self.pixels.sum(0) * k).sum() / total) if total else None,
            "by_k": self._by_k(),
            "cases": self._cases(),
            "effect": _means(self.lift.sum(0), total),
            "reliability": self._reliability(),
            "confusions": self._confusions(),
        }

    def _cases(self) -> dict[str, Any]:
        """Return each case's share, mean score, mean lift, effect (lift x share) and K histogram.

        Means are None if there are no pixels.
        """
        total, rows = max(1, int(self.pixels.sum())), {}
        for case, k, score, lift in zip((RIGHT, RESCUED, MISSED), self.pixels, self.score, self.lift, strict=True):
            pixels = int(k.sum())
            rows[str(case)] = {
                "share": pixels / total,
                "score": _means(score, pixels),
                "lift": _means(lift, pixels),
                "effect": _means(lift, total),
                "k_histogram": [count / max(1, pixels) for count in k.tolist()],
            }
        return rows

    def _by_k(self) -> list[dict[str, Any]]:
        """Return, for each K that occurs, share, coverage, top-1, and means and histograms of entropy and weight."""
        total, rows = max(1, int(self.pixels.sum())), []
        for place, (right, rescued, missed) in enumerate(self.pixels.T.tolist()):
            if pixels := right + rescued + missed:
                row = {"k": place + 1, "share": pixels / total, "coverage": (right + rescued) / pixels}
                row |= {"top1": right / pixels, "entropy": float(self.entropy[place]) / pixels}
                row["weight"] = float(self.weight[place]) / pixels
                for name, histogram in (("entropies", self.entropies), ("weights", self.weights)):
                    row[name] = [count / pixels for count in histogram[place].tolist()]
                rows.append(row)
        return rows

    def _reliability(self) -> list[dict[str, Any]]:
        """Return each bin's bounds, share of the pixels, mean confidence and accuracy (None for an empty bin)."""
        total = max(1, int(self.pixels.sum()))
        return [
            {
                "from": place / CONFIDENCE_BINS,
                "to": (place + 1) / CONFIDENCE_BINS,
                "share": pixels / total,
                "confidence": confidence / pixels if pixels else None,
                "accuracy": right / pixels if pixels else None,
            }
            for place, (pixels, confidence, right) in enumerate(self.reliability.T.tolist())
        ]

    def _confusions(self, limit: int = 20) -> list[dict[str, Any]]:
        """Return the most frequent confusions: true and predicted class, share of all pixels, fraction in case 2."""
        confusion, rescued = self.confusion
        total, wrong = max(1, int(confusion.sum())), confusion.clone().fill_diagonal_(0)
        rows = []
        for place in wrong.flatten().argsort(descending=True, stable=True)[:limit].tolist():
            truth, label = divmod(place, len(wrong))
            if pixels := int(wrong[truth, label]):
                row = {"truth": truth, "label": label, "share": pixels / total}
                rows.append({**row, "rescued": int(rescued[truth, label]) / pixels})
        return rows


def _means(sums: Tensor, pixels: int) -> dict[str, float | None]:
    """Divide the sums for the hard and the fuzzy loss by a pixel count; None for no pixels or a loss not measured."""
    values = (sums / pixels).tolist() if pixels else [torch.nan, torch.nan]
    return {name: None if value != value else value for name, value in zip(("hard", "fuzzy"), values, strict=True)}


def diagnose(pixels: PixelMaps, target: Tensor) -> Diagnosis:
    """Compute the statistics of a batch. pixels: output of `pixel_maps` for the same target (B,H,W)."""
    classes = pixels.order.shape[1]
    case = pixels.case.flatten().cpu().long()
    known = case > 0

    def values(of: Tensor) -> Tensor:
        return of.flatten().cpu()[known].double()

    def histogram(of: Tensor) -> Tensor:
        place = (values(of) * BINS).long().clamp(0, BINS - 1)
        return torch.bincount(k * BINS + place, minlength=classes * BINS).view(classes, BINS)

    row, k = case[known] - 1, pixels.k.flatten().cpu()[known] - 1
    confidence, right = values(pixels.confidence), (case[known] == RIGHT).double()
    place = ((confidence * CONFIDENCE_BINS).ceil().long() - 1).clamp(0, CONFIDENCE_BINS - 1)
    binned = (torch.bincount(place, each, minlength=CONFIDENCE_BINS) for each in (right * 0 + 1, confidence, right))
    score, lift = (
        torch.full((3, 2), torch.nan, dtype=torch.float64)
        if pair is None
        else torch.stack([torch.bincount(row, values(side), minlength=3) for side in pair], 1)
        for pair in (pixels.score, pixels.lift)
    )
    pair = (target.long() * classes + pixels.label).flatten().cpu()
    confusion = (torch.bincount(pair[where], minlength=classes**2) for where in (known, case == RESCUED))
    return Diagnosis(
        pixels=torch.bincount(row * classes + k, minlength=3 * classes).view(3, classes),
        entropy=torch.bincount(k, values(pixels.entropy), minlength=classes),
        weight=torch.bincount(k, values(pixels.weight), minlength=classes),
        entropies=histogram(pixels.entropy),
        weights=histogram(pixels.weight),
        score=score,
        lift=lift,
        reliability=torch.stack(list(binned)),
        confusion=torch.stack(list(confusion)).view(2, classes, classes),
    )
