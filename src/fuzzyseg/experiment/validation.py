"""Evaluation during training: the score on the validation images, and what the fuzzy sets hold there."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from fuzzyseg.analysis import Diagnosis, PixelMaps, diagnose, pixel_maps
from fuzzyseg.config import Config, LossConfig
from fuzzyseg.data import Item, Reader
from fuzzyseg.data.io.mask import save_index_png
from fuzzyseg.data.labels.blocks import label_reader, open_large
from fuzzyseg.data.loading.reader import check_sizes
from fuzzyseg.experiment.prepare_data import Material, build_reader
from fuzzyseg.inference import ModelCard, Predictor, evaluate
from fuzzyseg.inference.sliding_window import tiles_of
from fuzzyseg.losses import Adaptive, PixelLossModule
from fuzzyseg.losses.fpl.options import SetOptions
from fuzzyseg.ops import distributed
from fuzzyseg.ops.resize import resize_logits
from fuzzyseg.run.folder import RunFolder

MOST_LABELLED = 50
"""Labelled images that are looked at during training, at most."""


class Scoring:
    """Scores a network on the validation images of a run."""

    def __init__(
        self,
        config: Config,
        material: Material,
        device: torch.device,
        factory: Callable[[], nn.Module] | None,
        pixel_loss: nn.Module | None,
    ) -> None:
        self.config, self.material, self.device = config, material, device
        self.pixel_loss = pixel_loss if isinstance(pixel_loss, PixelLossModule) else None
        self.items = [item for item in material.split.val if item.mask is not None]
        labelled = material.split.labelled
        self.labelled = [labelled[place] for place in spread(len(labelled), MOST_LABELLED)]
        self.maps = None if config.out is None else RunFolder(config.out).maps_dir
        self.own_network = factory is not None
        self.reader = build_reader(config, material)
        self.ceiling: dict[str, float | None] | None = None  # of the masks and the stride alone: the same all run long

    @property
    def possible(self) -> bool:
        """Whether there is anything to score on."""
        return bool(self.items)

    @property
    def choose_best(self) -> bool:
        """Whether the validation images are enough to choose a checkpoint by."""
        return bool(self.material.split.choose_best)

    def card(self, step: int) -> ModelCard:
        """What is stored beside the weights."""
        config, dataset = self.config, self.material.dataset
        return ModelCard(
            classes=list(dataset.classes),
            colours=dataset.colours,
            encoding=dataset.encoding,
            bands=config.data.bands,
            levels=self.material.levels,
            ignore_index=dataset.ignore_index,
            mean=self.material.mean,
            std=self.material.std,
            channels=config.network.channels,
            image_size=config.data.image_size,
            crop=config.train.crop,
            arch=None if self.own_network else config.network.arch,
            encoder=None if self.own_network else config.network.encoder,
            method=config.method.name,
            loss=config.loss.name,
            step=step,
        )

    def evaluate(self, network: nn.Module, step: int) -> dict[str, Any]:
        """mIoU and its parts, and under `fuzzy` what FPL sees (`Diagnosis.brief`), of labelled images under `labelled`.

        Where the run asks for them, maps of K are written into its folder, but none of an image that is looked at in
        tiles because it is too large.
        """
        settings = self.config.evaluate
        predictor = Predictor(network, self.card(step), self.device)
        result: dict[str, Any] = evaluate(
            predictor,
            self.items,
            mode=settings.mode,
            window=settings.window,
            scales=settings.scales,
            flip=settings.flip,
            batch=settings.batch,
            ceiling=self.ceiling,
        )
        self.ceiling = result["ceiling"]
        if self.pixel_loss is not None:
            result["fuzzy"] = self._diagnosis(predictor, step)
        return result

    def _diagnosis(self, predictor: Predictor, step: int) -> dict[str, Any]:
        """Of the network as its own teacher, on the validation images and on some of the labelled ones."""
        keep = set(spread(len(self.items), self.config.train.k_maps)) if distributed.rank() == 0 else set()
        found = {}
        for name, items in (("val", self.items), ("labelled", self.labelled)):
            total: Diagnosis | None = None
            for number, item in enumerate(items):
                tiles = 0
                for logits, target in self.training_pairs(predictor, item):
                    pixels = self._look(predictor, logits, target)
                    counts = diagnose(pixels, target)
                    total = counts if total is None else total.plus(counts)
                    tiles += 1
                if name == "val" and number in keep and self.maps is not None and tiles == 1:
                    file = self.maps / f"{step:06d}" / f"{number:05d}.png"
                    save_index_png(pixels.k[0].cpu().numpy(), file)
            if total is not None:
                found[name] = total.brief()
        return {**found["val"], **({"labelled": found["labelled"]} if "labelled" in found else {})}

    def training_pairs(self, predictor: Predictor, item: Item) -> Iterator[tuple[Tensor, Tensor]]:
        """Logits (1,C,H,W) and mask (1,H,W) of each of the item's `training_parts`, where the loss sees them."""
        for image, mask in training_parts(self.reader, item):
            yield predictor.training_logits(image).unsqueeze(0), mask.unsqueeze(0).to(self.device)

    def _look(self, predictor: Predictor, logits: Tensor, target: Tensor) -> PixelMaps:
        """What the loss, with T and temperature as it has them now, makes of such a pair."""
        assert self.pixel_loss is not None
        teacher = self.pixel_loss.tempered(logits)
        assert isinstance(teacher, Tensor)
        threshold = thresholds_at(self.pixel_loss, teacher, predictor.network)
        options = set_options(self.config.loss)
        return pixel_maps(teacher, logits, target, threshold=threshold, options=options, lift=False)


def training_parts(reader: Reader, item: Item) -> Iterator[tuple[Tensor, Tensor]]:
    """Image (Cin,H,W) and mask (H,W) at the training scale.

    Of an image that is too large to be decoded whole, one pair for each of its tiles, which do not overlap.
    """
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
        yield torch.from_numpy(windows.read(box)).movedim(-1, 0), torch.from_numpy(truth(box))


def thresholds_at(pixel_loss: PixelLossModule, logits: Tensor, network: nn.Module) -> Tensor:
    """T as the loss has it now for logits (B,C,H,W) of a network: 0-dim, or (B,H,W) where it is chosen by the pixels.

    Under A-FPL that is at the network's stride.
    """
    stride = int(getattr(network, "stride", 1))
    size = (logits.shape[-2], logits.shape[-1])
    if isinstance(pixel_loss.policy, Adaptive):
        logits = resize_logits(logits, [math.ceil(side / stride) for side in size])
    return pixel_loss.thresholds(logits, size)


def set_options(loss: LossConfig) -> SetOptions:
    """What of the loss's settings says which set and weight a pixel gets; also where another loss is trained with."""
    return SetOptions(weight=loss.weight, a=loss.a, k_cap=loss.k_cap, rule=loss.rule, variant=loss.variant)


def spread(total: int, wanted: int) -> list[int]:
    """`wanted` of the places 0 to total - 1, or all, evenly."""
    count = min(total, wanted)
    return [(2 * number + 1) * total // (2 * count) for number in range(count)]
