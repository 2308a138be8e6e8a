"""Evaluation during training: scores and FPL statistics on the validation images."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from fuzzyseg.analysis.diagnosis import Diagnosis
from fuzzyseg.analysis.pixels import PixelMaps, pixel_maps
from fuzzyseg.analysis.temperature import Pixels, judged, sampled, temperature_of
from fuzzyseg.config import EvaluateConfig, LossConfig, TrainConfig
from fuzzyseg.data import VOID, Item, Reader
from fuzzyseg.data.io.mask import save_index_png
from fuzzyseg.data.labels.blocks import label_reader, open_large
from fuzzyseg.data.loading.reader import check_sizes
from fuzzyseg.data.splits.groups import in_groups
from fuzzyseg.data.views import known_pixels
from fuzzyseg.experiment.gallery import diagnosis_of, reliability, write_evaluation
from fuzzyseg.experiment.prepare_data import Material
from fuzzyseg.inference import ModelCard, Predictor, evaluate
from fuzzyseg.inference.reusing import ReusingPredictor
from fuzzyseg.inference.sliding_window import tiles_of
from fuzzyseg.losses import Adaptive, PixelLossModule
from fuzzyseg.losses.fpl.options import FPLOptions
from fuzzyseg.ops import distributed
from fuzzyseg.ops.resize import resize_logits
from fuzzyseg.plugins import Metric
from fuzzyseg.run.files import fingerprint
from fuzzyseg.run.folder import RunFolder

T = TypeVar("T")

MAX_LABELLED = 50
"""Maximum number of labelled images for FPL's statistics, and of images for fitting the temperature."""

HELD_BACK, CROSS_FITTED = "held-back labels", "the validation images, cross-fitted"
"""Descriptions of what a temperature was fitted on."""


@dataclass
class Scoring:
    """Evaluates a network on the validation images of a run.

    train, settings, loss: sections of the configuration. pixel_loss: loss that provides T for FPL's statistics; None:
    no statistics. run: the run folder. metrics: additional metrics by name.
    """

    material: Material
    reader: Reader
    device: torch.device
    train: TrainConfig
    settings: EvaluateConfig
    loss: LossConfig
    pixel_loss: PixelLossModule | None
    run: RunFolder
    metrics: Mapping[str, Metric]
    _ceiling: dict[str, float | None] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.items = [item for item in self.material.split.val if item.mask is not None]
        self.labelled = evenly_spaced(self.material.split.labelled, MAX_LABELLED)

    def card_at(self, step: int) -> ModelCard:
        """Return the model card after this step."""
        return replace(self.material.card, step=step)

    def evaluate(self, network: nn.Module, step: int) -> dict[str, Any]:
        """Return the result of `inference.evaluate`, the additional metrics, and FPL's statistics (`fuzzy`) if due.

        `fuzzy` contains `Diagnosis.brief` of the validation images and, under `labelled`, of some labelled images.
        """
        settings, last = self.settings, step == self.train.steps
        counts: list[Any] = []
        kind = ReusingPredictor if last else Predictor  # the last evaluation measures more on the same images
        predictor = kind(network, self.card_at(step), self.device)
        call = settings.model_dump(exclude={"diagnose", "gallery"})
        call |= {"ceiling": self._ceiling, "metrics": self.metrics}
        result: dict[str, Any] = evaluate(predictor, self.items, keep=lambda *c: counts.append(c), **call)
        self._ceiling = result["ceiling"]  # depends only on masks and stride
        every = settings.diagnose == "every" or (settings.diagnose == "last" and (self.train.k_maps > 0 or last))
        diagnoses: dict[str, Diagnosis] = {}
        if self.pixel_loss is not None and every:
            diagnoses = self._diagnosis(predictor, step)
            brief = {name: each.brief() for name, each in diagnoses.items()}
            result["fuzzy"] = {**brief.pop("val"), **brief}
        if last:
            result["calibration"] = self._calibration(predictor)
        if last and settings.gallery > 0:
            maps, void = partial(self.pixel_maps, predictor), predictor.card.ignore_index
            quality = reliability(self.items, maps, diagnoses.get("val"))
            if distributed.rank() == 0:
                known = self.run.evaluation_dir, predictor, self.items, counts[0], maps, result, settings, void
                write_evaluation(*known, quality, step=step, split="val")
        return result

    def _calibration(self, predictor: Predictor) -> dict[str, Any] | None:
        """Return the finished model's temperature, what it was fitted on, and the calibration of its probabilities.

        The temperature is fitted on held-back images if there are any, otherwise on the validation images, whose
        calibration is then measured with two-fold cross-fitting. At most `MAX_LABELLED` images of each kind are used.
        `files` identifies those used for fitting by their content. Returns None if there are no labelled pixels.
        """
        held_back, _, fitted = pixels_of_groups(predictor, self.reader, self.material.held_back, None)
        val, middle, judged_on = pixels_of_groups(predictor, self.reader, self.items, self.material.group)
        if not held_back and not val:
            return None
        temperature = temperature_of(held_back or val)
        result = judged(val, temperature if held_back else None, self.material.card.classes, middle)
        fitted_on, used = (HELD_BACK, fitted) if held_back else (CROSS_FITTED, judged_on)
        return {"temperature": temperature, "fitted_on": fitted_on, "files": [*map(fingerprint, used)], **result}

    def _diagnosis(self, predictor: Predictor, step: int) -> dict[str, Diagnosis]:
        """Return FPL's statistics with the network as its own teacher. Writes maps of K, except for tiled images."""
        places = evenly_spaced(range(len(self.items)), self.train.k_maps)
        keep = {self.items[place].name: place for place in places}

        def maps(item: Item) -> Iterator[tuple[PixelMaps, Tensor]]:
            tiles = 0
            for pixels, target in self.pixel_maps(predictor, item):
                yield pixels, target
                tiles += 1
            if item.name in keep and tiles == 1:
                file = self.run.maps_dir / f"{step:06d}" / f"{keep[item.name]:05d}.png"
                save_index_png(pixels.k[0].cpu().numpy(), file)

        found = {
            "val": diagnosis_of(self.items, maps),
            "labelled": diagnosis_of(self.labelled, partial(self.pixel_maps, predictor)),
        }
        return {name: total for name, total in found.items() if total is not None}

    def pixel_maps(self, predictor: Predictor, item: Item) -> Iterator[tuple[PixelMaps, Tensor]]:
        """Yield maps and mask (1,H,W) of each of the item's `training_parts`, with T = 0.9 if the run has no T."""
        options, loss = set_options(self.loss), self.pixel_loss
        for logits, target in training_pairs(predictor, self.reader, item):
            teacher = logits
            threshold: float | Tensor = self.loss.threshold if isinstance(self.loss.threshold, float) else 0.9
            if loss is not None:
                teacher = loss.tempered(logits)
                threshold = thresholds_at(loss, teacher, predictor.network)
            yield pixel_maps(teacher, logits, target, threshold=threshold, options=options, lift=False), target


def sampled_pixels(predictor: Predictor, reader: Reader, items: Sequence[Item]) -> list[Pixels | None]:
    """Return labelled pixels of each item, selected by `sampled`; None for items without any.

    The items are split across the processes, so call it on every process.
    """

    def measure(item: Item) -> Pixels | None:
        pixels = sampled(training_pairs(predictor, reader, item))
        return None if pixels is None else (pixels[0].cpu(), pixels[1].cpu())

    each, device = distributed.divided(items, measure), predictor.device
    return [None if pixels is None else (pixels[0].to(device), pixels[1].to(device)) for pixels in each]


def training_pairs(predictor: Predictor, reader: Reader, item: Item) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield logits (1,C,H,W) and mask (1,H,W) of each of the item's `training_parts`, on the device."""
    for image, mask in training_parts(reader, item):
        yield predictor.training_logits(image).unsqueeze(0), mask.unsqueeze(0).to(predictor.device)


def pixels_of_groups(
    predictor: Predictor, reader: Reader, items: Sequence[Item], group: str | None
) -> tuple[list[Pixels], int, list[Path]]:
    """Return sampled pixels of at most `MAX_LABELLED` items, the index at which to halve the list, and image files.

    Groups are not split, unless there is only one. Items without labelled pixels are omitted.
    """
    chosen = evenly_spaced(in_groups(items, group), MAX_LABELLED)
    each = zip(chosen, sampled_pixels(predictor, reader, [item for _, item in chosen]), strict=True)
    keyed = [(key, pixels, item) for (key, item), pixels in each if pixels is not None]
    starts = [place for place in range(1, len(keyed)) if keyed[place][0] != keyed[place - 1][0]]
    middle = min(starts, key=lambda place: abs(place - len(keyed) // 2), default=len(keyed) // 2)
    return [pixels for _, pixels, _ in keyed], middle, [item.image for *_, item in keyed]


def training_parts(reader: Reader, item: Item) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield image (Cin,H,W) and mask (H,W) at the training scale: one pair, or one per tile of a large image."""
    windows = None
    if reader.image_size is None:
        windows = open_large(item.image, reader.channels, bands=reader.bands, levels=reader.levels)
    if windows is None:
        image, mask = reader.read(item, with_mask=True)
        assert mask is not None
        yield image, mask
        return
    check_sizes([item])
    truth = label_reader(item, classes=reader.classes, ignore_index=reader.ignore_index)
    for box in tiles_of(windows.size):
        image, mask = torch.from_numpy(windows.read(box, with_known=True)).movedim(-1, 0), torch.from_numpy(truth(box))
        known = known_pixels(image, reader.channels)
        yield image, mask if known is None else mask.masked_fill(~known, VOID)


def thresholds_at(pixel_loss: PixelLossModule, logits: Tensor, network: nn.Module) -> Tensor:
    """Return the current T for logits (B,C,H,W) of a network: 0-dim, or (B,H,W) if T differs per pixel.

    A-FPL computes T at the network's stride.
    """
    stride = int(getattr(network, "stride", 1))
    size = (logits.shape[-2], logits.shape[-1])
    if isinstance(pixel_loss.policy, Adaptive):
        logits = resize_logits(logits, [math.ceil(side / stride) for side in size])
    return pixel_loss.thresholds(logits, size)


def set_options(loss: LossConfig) -> FPLOptions:
    """Return the settings that determine the fuzzy set and weight of a pixel, for any loss."""
    return FPLOptions(loss.weight, loss.a, loss.k_cap, loss.rule, loss.variant)


def evenly_spaced(items: Sequence[T], limit: int) -> list[T]:
    """Return at most `limit` items, evenly spaced."""
    count = min(len(items), limit)
    return [items[(2 * number + 1) * len(items) // (2 * count)] for number in range(count)]
