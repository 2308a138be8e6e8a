"""Preparation of a run's data: dataset, split, input statistics, reader and loader."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fuzzyseg.config import AugmentConfig, ConfigError, DataConfig, TrainConfig
from fuzzyseg.data import DataError, DataSet, Item, Reader, combine, read_dataset
from fuzzyseg.data.check.findings import note_undeclared_void
from fuzzyseg.data.io.header import file_size
from fuzzyseg.data.io.image import Levels
from fuzzyseg.data.io.scores import with_scores
from fuzzyseg.data.labels.class_counts import class_presence, median_frequency_weights, only_void, pixel_counts
from fuzzyseg.data.labels.declared import LabelOptions
from fuzzyseg.data.loading.disk_cache import default_folder
from fuzzyseg.data.loading.loader import Loader
from fuzzyseg.data.loading.normalisation import HEADERS, kinds_of, measure
from fuzzyseg.data.loading.reader import LazyReader, check_sizes
from fuzzyseg.data.loading.value_range import compare, header_notes, values_of
from fuzzyseg.data.sample import LabelMap
from fuzzyseg.data.splits.split import Split, make_split
from fuzzyseg.data.text import short
from fuzzyseg.data.transforms.geometry import Geometry
from fuzzyseg.experiment.build import Setup
from fuzzyseg.inference import ModelCard, read_card
from fuzzyseg.methods import Facts, Method
from fuzzyseg.networks.weights import weights_statistics
from fuzzyseg.ops import distributed

IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
GREY = ([0.449], [0.226])  # ImageNet's mean and std, for one channel


@dataclass
class Material:
    """A run's data. card: input settings. held_back: labelled images reserved for calibration. group: `data.group`."""

    dataset: DataSet
    split: Split
    card: ModelCard
    sentences: list[str]
    held_back: list[Item] = field(default_factory=list)
    group: str | None = None

    @property
    def sources(self) -> dict[str, list[Item]]:
        """Lists of images that streams sample from, by name."""
        return {"labelled": self.split.labelled, "unlabelled": self.split.unlabelled, "all": self.split.all_}

    @cached_property
    def class_weights(self) -> Tensor:
        """Sampling weights (C,N): uniform over the labelled images that contain the class; 0 if none does.

        Reads the masks of the labelled images once.
        """
        classes, items = len(self.dataset.classes), self.split.labelled
        presence = class_presence(items, classes=classes, ignore_index=self.dataset.ignore_index).T
        weights = torch.from_numpy(np.ascontiguousarray(presence)).float()
        return weights / weights.sum(1, keepdim=True).clamp(min=1)

    def loss_weights(self, given: Sequence[float] | Literal["auto"] | None) -> Sequence[float] | None:
        """Return class weights for the supervised loss. given: weights, "auto" (from the labelled masks), or None."""
        if given != "auto":
            return given
        names, void = self.dataset.classes, self.dataset.ignore_index
        weights = median_frequency_weights(pixel_counts(self.split.labelled, classes=len(names), ignore_index=void))
        shown = (f"{name} {weight:.2g}" for name, weight in zip(names, weights, strict=True))
        self.sentences.append(f"class weights: {', '.join(shown)}")
        return weights

    @property
    def facts(self) -> Facts:
        """Properties of the data that a method needs."""
        return facts_of(self.card, {name: len(items) for name, items in self.sources.items()})


def facts_of(card: ModelCard, images: Mapping[str, int]) -> Facts:
    """Return the properties of the data that a method needs. images: number of images by source."""
    names = [name.lower() for name in card.classes]
    return Facts(len(names), card.channels, names.index("background") if "background" in names else None, images)


def gather_material(data: DataConfig, setup: Setup, seed: int) -> Material:
    """List the dataset's files, split them, and compute the input statistics. Raises ConfigError, DataError."""
    if data.root is None:
        raise ConfigError("--data: not given; name the folder with your images (see `fuzzyseg train --help`)")
    dataset = read_configured(data)
    if len(dataset.classes) < 2:
        raise DataError(f"{dataset.root}: found {len(dataset.classes)} class; segmentation needs at least 2")
    split = split_for(data, seed, dataset)
    check_sizes([*split.labelled, *split.val])
    for what, items in (("labelled", split.labelled), ("validation", split.val)):
        if items and only_void(items, classes=len(dataset.classes), ignore_index=dataset.ignore_index):
            names = short([str(item.mask) for item in items], 3)
            raise DataError(f"every pixel of all {what} masks is void: {names}; is ignore_index right?")
    mean, std, levels, sentences = input_scale(data, setup, split.all_)
    notes, value_range = value_notes(data, setup.network.channels, setup.init, split.all_, split.val)
    network = setup.network.model_dump(include={"channels", "arch", "encoder"})
    if setup.own_network is not None:
        network |= {"arch": None, "encoder": None}
    card = ModelCard(
        classes=list(dataset.classes),
        colours=dataset.colours,
        encoding=dataset.encoding,
        bands=data.bands,
        levels=levels,
        value_range=value_range,
        ignore_index=dataset.ignore_index,
        mean=mean,
        std=std,
        image_size=data.image_size,
        crop=setup.crop,
        method=setup.name,
        loss=setup.loss.name,
        **network,
    )
    notes += note_undeclared_void(dataset, [*split.labelled, *split.val])
    return Material(dataset, split, card, [*sentences, *notes])


def value_notes(
    data: DataConfig, channels: int, init: Sequence[str], images: list[Item], val: list[Item]
) -> tuple[list[str], dict[str, tuple[float, float]]]:
    """Return warnings about implausible image values, and the value ranges of the training images.

    Training images are compared with those that `init` was trained on, validation images with the training images.
    """
    kind, levels = (channels, data.bands), given_levels(data)
    values = values_of(images, *kind)
    notes = [*header_notes([*images, *val]), *([] if levels else values.notes(channels))]
    for card in cards_of(init)[:1]:
        notes += compare(images, card.value_range, *kind, levels or card.levels)
    return [*notes, *compare(val, values.ranges, *kind, levels)], values.ranges


def cards_of(init: Sequence[str]) -> list[ModelCard]:
    """Return the model cards of initial weights, skipping files without one."""
    return [card for path in init if (card := read_card(path)) is not None]


def given_levels(data: DataConfig) -> Levels | None:
    """Return `data.low` and `data.high` if both are set."""
    return None if data.low is None or data.high is None else Levels(tuple(data.low), tuple(data.high))


def split_for(data: DataConfig, seed: int, dataset: DataSet) -> Split:
    """Return the split that a run with these settings uses. Raises DataError."""
    return make_split(
        dataset,
        labelled=data.labelled,
        val=data.val,
        seed=seed if data.split_seed is None else data.split_seed,
        policy=data.policy,
        unlabelled=data.unlabelled,
        void=data.void,
        group=data.group,
    )


def read_configured(data: DataConfig, *, fallback: LabelMap | None = None, unlabelled: bool = True) -> DataSet:
    """Read the configured dataset. fallback: label map to use if none is declared.

    unlabelled: include the images of `data.unlabelled_from`.
    """
    assert data.root is not None
    options: LabelOptions = {"classes": data.classes, "ignore_index": data.ignore_index}
    options |= {"encoding": data.encoding, "snap": data.snap, "fallback": fallback}
    description = None if data.description is None else Path(data.description)
    first = read_dataset(data.root, layout=data.layout, description=description, **options)
    return combine(first, more=data.more, unlabelled=data.unlabelled_from if unlabelled else None, **options)


def input_scale(
    data: DataConfig, setup: Setup, images: list[Item]
) -> tuple[list[float], list[float], Levels | None, list[str]]:
    """Return mean, standard deviation, levels and notes. Plain RGB images are not measured; see `input_statistics`."""
    channels = setup.network.channels
    if (data.low is None) != (data.high is None):
        raise ConfigError("data.low, data.high: found one without the other; give both or neither")
    kinds = kinds_of(images, channels)
    if data.bands is not None and len(data.bands) != channels:
        raise ConfigError(f"data.bands: found {len(data.bands)} bands for network.channels={channels}; give {channels}")
    given, cards = given_levels(data), cards_of(setup.init)
    if given is None and cards:  # the levels that the weights were trained with
        given = cards[0].levels
    known = data.mean is not None or bool(cards)
    if (kinds.plain and data.bands is None) or (known and not (kinds.measured_range and given is None)):
        mean, std = input_statistics(data, setup)
        return mean, std, given or kinds.levels, [] if kinds.plain else [kinds.words()]
    measured = measure(images, kinds, channels, data.bands, given)
    mean, std = input_statistics(data, setup, measured=(list(measured.mean), list(measured.std)))
    source = "given" if known else f"measured on {measured.images} images"
    return mean, std, measured.levels, [f"{kinds.words()}; mean and standard deviation are {source}"]


def say_sizes(material: Material, crop: tuple[int, int], image_size: tuple[int, int] | None = None) -> list[str]:
    """Describe the sizes of the first `HEADERS` training images, read from their headers, and the crops."""
    sizes = [file_size(item.image) for item in material.split.all_[:HEADERS]]
    low, high = (tuple(pick(side) for side in zip(*sizes, strict=True)) for pick in (min, max))
    text = f"images are {low[0]}x{low[1]}" + (f" to {high[0]}x{high[1]}" if low != high else "")
    if image_size is not None:
        high = image_size
        text += f", read at {high[0]}x{high[1]}"
    sentences = [f"{text} (height x width); crops are {crop[0]}x{crop[1]}"]
    if crop[0] * crop[1] > 2 * high[0] * high[1]:
        fits = [max(32, side // 32 * 32) for side in high]  # valid for every architecture
        sentences.append(f"most of such a crop is padding: consider --crop {fits[0]}x{fits[1]} or smaller")
    mean, std = ([round(value, 3) for value in values] for values in (material.card.mean, material.card.std))
    return [*sentences, *material.sentences, f"input statistics: mean {mean}, standard deviation {std}"]


def say_balance(material: Material, balance: str) -> list[str]:
    """Describe `data.balance`, unless it is none."""
    if balance == "none":
        return []
    n, known = int((material.class_weights.sum(1) > 0).sum()), len(material.dataset.classes)
    classes = f"the {n} classes" if n == known else f"the {n} of {known} classes in the labelled images"
    text = f"data.balance={balance}: labelled images are drawn for each of {classes} equally often"
    return [text + ", and cropped around that class" * (balance == "crops")]


def input_statistics(
    data: DataConfig, setup: Setup, *, measured: tuple[list[float], list[float]] | None = None
) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation: the first available of settings, `init`, `measured`, weights and ImageNet."""
    channels = setup.network.channels
    if (data.mean is None) != (data.std is None):
        raise ConfigError("data.mean, data.std: found one without the other; give both or neither")
    statistics: tuple[list[float], list[float]] | None = None
    if data.mean is not None and data.std is not None:
        statistics = (data.mean, data.std)
    elif setup.init:
        known = [(list(card.mean), list(card.std)) for card in cards_of(setup.init)]
        if any(pair != known[0] for pair in known):
            raise ConfigError("--init: the files have different input statistics; set data.mean and data.std")
        statistics = known[0] if known else None
    statistics = statistics or measured
    if statistics is None:
        source = "none" if setup.own_network else setup.network.weights  # has no effect on a custom network
        weights = weights_statistics(source, setup.network.encoder, channels)
        statistics = weights or {3: IMAGENET, 1: GREY}.get(channels)
    if statistics is None or len(statistics[0]) != channels or len(statistics[1]) != channels:
        what = "none available" if statistics is None else f"found {len(statistics[0])} and {len(statistics[1])} values"
        raise ConfigError(f"data.mean, data.std: {what} for {channels} channels; give one value per channel for each")
    return list(statistics[0]), list(statistics[1])


def build_reader(data: DataConfig, card: ModelCard) -> Reader:
    """Build a reader that returns items at the training scale."""
    return card.reader(
        image_size=data.image_size,
        cache_bytes=0 if data.cache == "none" else data.cache_mib * 2**20,
        cache_dir=None if data.cache != "disk" else Path(data.cache_dir) if data.cache_dir else default_folder(),
        megapixels=data.max_megapixels,
    )


def build_loader(
    data: DataConfig,
    augment: AugmentConfig,
    train: TrainConfig,
    material: Material,
    method: Method,
    device: torch.device,
    seed: int,
) -> Loader:
    """Build a loader for the method's streams. Raises ConfigError if a source has no images."""
    for name, stream in method.streams.items():
        if not material.sources[stream.source]:
            raise ConfigError(
                f"the method draws from {stream.source} images (stream {name!r}); there are none: add images without "
                "masks, lower --labelled, or set data.unlabelled=all to use the labelled ones too"
            )
    scores = any(stream.scores for stream in method.streams.values())
    geometry = augment.model_dump(include={"scale", "scale_draw", "flip", "vertical_flip", "blur_reference"})
    return Loader(
        method.streams,
        material.sources | ({"unlabelled": with_scores(material.split.unlabelled, data.scores)} if scores else {}),
        LazyReader(build_reader(data, material.card)),
        geometry=Geometry(crop=train.crop, **geometry),
        jitter=augment.jitter,
        mean=material.card.mean,
        std=material.card.std,
        batch=train.batch,
        accumulate=train.accumulate,
        seed=seed,
        workers=train.workers,
        rank=distributed.rank(),
        world=distributed.world_size(),
        pin=device.type == "cuda",
        balance=None if data.balance == "none" else {"labelled": material.class_weights},
        focused=data.balance == "crops",
        colours_later=augment.on_device,
    )
