"""Temperature scaling of a trained model, fitted on some labelled images and evaluated on others."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from fuzzyseg.analysis.diagnosis import CONFIDENCE_BINS
from fuzzyseg.losses.base import at_least_fp32

LARGEST = 10.0
"""Temperatures are searched from 1 / LARGEST to LARGEST, since the optimum is 0 if all predictions are correct."""

SAMPLE = 4096
"""Maximum number of (evenly spaced) pixels per image, or per tile of a large one, for fitting and evaluation."""

LEVEL = 0.9
"""Cumulative probability that a prediction set must exceed."""

Pixels = tuple[Tensor, Tensor]
"""Logits (N,C) and true classes (N,) of the sampled pixels of one image."""


def sampled(parts: Iterable[tuple[Tensor, Tensor]], ignore_index: int = 255) -> Pixels | None:
    """Sample evenly spaced labelled pixels of an image. Returns None if there are none.

    parts: (logits (1,C,H,W), mask (1,H,W)) of the whole image or of each of its tiles.
    """
    logits, targets = [], []
    for z, mask in parts:
        known = mask[0] != ignore_index
        every = max(1, -(-int(known.sum()) // SAMPLE))
        logits.append(z[0][:, known][:, ::every].T)
        targets.append(mask[0][known][::every])
    return (torch.cat(logits), torch.cat(targets)) if sum(map(len, targets)) else None


def fitted_temperature(logits: Tensor, target: Tensor) -> float:
    """Return the temperature t that minimises the negative log likelihood of softmax(logits / t).

    logits (N,C). target (N,): true classes. C. Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
    Raises ValueError if `target` is empty.
    """
    if not len(target):
        raise ValueError("no pixel with a class to fit the temperature on")
    with torch.no_grad():
        z = at_least_fp32(logits)
        z = z - z.gather(1, target.long().unsqueeze(1))  # the true logit becomes 0
        low, high = 1 / LARGEST, LARGEST
        # the likelihood is convex in 1 / t: bisect its slope, the sum of the expected minus the true logits
        for _ in range(26):  # to a relative error of 1e-7
            middle = (low * high) ** 0.5
            slope = (torch.softmax(z / middle, 1) * z).sum(1).mean()
            low, high = (middle, high) if float(slope) > 0 else (low, middle)  # above 0: 1 / t is too large
    return float((low * high) ** 0.5)


def temperature_of(images: Sequence[Pixels]) -> float:
    """Fit one temperature to the pixels of all images. Raises ValueError if there are none."""
    logits, targets = zip(*images, strict=True) if images else ((torch.empty(0, 1),), (torch.empty(0),))
    return fitted_temperature(torch.cat(logits), torch.cat(targets))


def judged(
    images: Sequence[Pixels], temperature: float | None, names: Sequence[str], middle: int | None = None
) -> dict[str, Any]:
    """Measure the calibration of predicted probabilities, without and with a temperature.

    temperature: fitted on other images. Default: each half of the images uses the temperature fitted on the other half
    (the halves are contiguous, so frames of the same video are rarely in both). names: class names. middle: number of
    images in the first half. Default: half of them.

    Returns {} if there are too few images. Otherwise, the result contains `ece` and `ece_calibrated`, the expected
    calibration error without and with the temperature (Guo et al., ICML 2017); `coverage` and `coverage_per_class`
    (None for a class without pixels), the fraction of pixels whose prediction set contains the true class; and
    `set_size`, the mean size of these sets. A prediction set is the smallest set of most probable classes whose
    calibrated probabilities sum to more than `level`.
    """
    middle = len(images) // 2 if middle is None else middle
    first, second = images[:middle], images[middle:]
    parts: list[tuple[Sequence[Pixels], float]] = [(images, temperature or 1.0)]
    if not images or (temperature is None and not (first and second)):
        return {}
    if temperature is None:
        parts = [(first, temperature_of(second)), (second, temperature_of(first))]
    classes = len(names)
    # axis 0: without and with the temperature; axis 1: summed confidence, number of correct pixels
    bins = torch.zeros(2, 2, CONFIDENCE_BINS, dtype=torch.float64)
    covered, pixels = torch.zeros(2, classes, dtype=torch.float64)
    size = 0.0
    for part, t in parts:
        for logits, target in part:
            for row, value in enumerate((1.0, t)):
                p = (logits.double() / value).softmax(1)
                confidence, label = p.max(1)
                place = ((confidence * CONFIDENCE_BINS).ceil().long() - 1).clamp(0, CONFIDENCE_BINS - 1)
                for column, each in enumerate((confidence, (label == target).double())):
                    bins[row, column] += torch.bincount(place, each, minlength=CONFIDENCE_BINS).cpu()
            upto = p.sort(1, descending=True).values.cumsum(1)
            # A class is in the set if the sum over the classes ranked before it does not exceed LEVEL.
            size += len(target) + int((upto[:, :-1] <= LEVEL).sum())
            more = (p * (p > p.gather(1, target.long().unsqueeze(1)))).sum(1)  # that sum for the true class
            covered += torch.bincount(target, (more <= LEVEL).double(), minlength=classes).cpu()
            pixels += torch.bincount(target, minlength=classes).cpu()
    total = float(pixels.sum())
    ece, calibrated = ((confidence - right).abs().sum().item() / total for confidence, right in bins)
    counted = zip(names, covered.tolist(), pixels.tolist(), strict=True)
    return {
        "images": len(images),
        "pixels": int(total),
        "ece": ece,
        "ece_calibrated": calibrated,
        "level": LEVEL,
        "coverage": float(covered.sum()) / total,
        "coverage_per_class": {name: None if count == 0 else hit / count for name, hit, count in counted},
        "set_size": size / total,
    }
