"""Evaluation during training: the score on the validation images, and what the fuzzy sets hold there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from fuzzyseg.analysis import Coverage, fuzzy_coverage
from fuzzyseg.config import Config
from fuzzyseg.experiment.learning import choose_method, loss_name
from fuzzyseg.experiment.material import Material, build_reader
from fuzzyseg.inference import ModelCard, Predictor, evaluate


class Scoring:
    """Scores a network on the validation images of a run."""

    def __init__(
        self, config: Config, material: Material, device: torch.device, factory: Callable[[], nn.Module] | None
    ) -> None:
        self.config, self.material, self.device = config, material, device
        self.items = [item for item in material.split.val if item.mask is not None]
        self.own_network = factory is not None
        self.reader = build_reader(config, material)

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
        """mIoU and its parts, and under `fuzzy` the coverage of the truth by the fuzzy sets, top-1 accuracy and K."""
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
        )
        if loss_name(self.config, choose_method(self.config)[0]) is not None:
            result["fuzzy"] = self._coverage(predictor).shares()
        return result

    def _coverage(self, predictor: Predictor) -> Coverage:
        """At the training scale, where the loss sees the logits."""
        loss = self.config.loss
        total: Coverage | None = None
        for item in self.items:
            image, mask = self.reader.read(item, with_mask=True)
            assert mask is not None
            counts = fuzzy_coverage(
                predictor.training_logits(image).unsqueeze(0),
                mask.unsqueeze(0).to(self.device),
                threshold=loss.threshold,
                k_cap=loss.k_cap,
                rule=loss.rule,
                variant=loss.variant,
            )
            total = counts if total is None else total.plus(counts)
        assert total is not None
        return total
