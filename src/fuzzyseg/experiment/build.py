"""Configuration -> what is learnt: method, losses, network, optimisers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import nn
from torch.nn.modules.dropout import _DropoutNd
from torch.optim import Optimizer

from fuzzyseg.config import Config, ConfigError, LossConfig, SupervisedConfig, describe, nearest
from fuzzyseg.engine.optim import build_optimisers
from fuzzyseg.losses import PIXEL_LOSSES, PIXEL_OPTIONS, SET_LOSSES, PixelLossModule, Policy, SupervisedLoss
from fuzzyseg.methods import METHODS, Facts, Method, MethodConfig
from fuzzyseg.networks import NetworkFactory, Segmenter, dropout_options, load_network, network_file
from fuzzyseg.ops.module_mode import evaluating

Network = Callable[[], nn.Module]


def choose_method(config: Config) -> tuple[type[Method], MethodConfig]:
    """The method's class and its own settings. Raises ConfigError."""
    name = config.method.name
    if name not in METHODS:
        raise ConfigError(f"method: found {name!r}.{nearest(name, METHODS)}")
    chosen = METHODS[name]
    try:
        return chosen, chosen.Config.model_validate(config.method.options)
    except ValidationError as error:
        raise ConfigError(describe(error, "method", chosen.Config.model_fields)) from None


def loss_name(config: Config, method: type[Method]) -> str | None:
    """The name of the pixel loss that will be used; None where the method's own term is none. Raises ConfigError."""
    name = config.loss.name
    if name == "paper":
        return method.paper_loss[0] if method.paper_loss else None
    if name not in PIXEL_LOSSES:
        raise ConfigError(f"loss: found {name!r}.{nearest(name, ['paper', *PIXEL_LOSSES])}")
    if name in method.refuses:
        raise ConfigError(f"loss {name!r} with method {config.method.name!r} {method.refuses[name]}")
    return name


def build_pixel_loss(config: Config, method: type[Method], threshold: float | Policy) -> PixelLossModule | None:
    """The pseudo-label loss, or None where the method uses none. threshold: T, or what sets it."""
    name = loss_name(config, method)
    if name is None:
        return None
    if config.loss.name == "paper":
        assert method.paper_loss is not None
        options = dict(method.paper_loss[1])
    else:
        options = pixel_options(config.loss, name)
    return PixelLossModule(PIXEL_LOSSES[name], options, threshold)


def uses_threshold(config: Config, method: type[Method]) -> bool:
    """Whether T changes anything: for losses over a set, and for `hard` with the scale of one."""
    name = loss_name(config, method)
    if config.loss.name == "paper":
        return False
    return name in SET_LOSSES or (name == "hard" and config.loss.balance)


def gates(config: Config) -> bool:
    """Whether held-back labels decide if the method's confident pixels are to be trusted."""
    return getattr(choose_method(config)[1], "confidence", None) == "gate"


def idle_options(config: Config, method: type[Method]) -> list[str]:
    """Settings of the pseudo-label loss, and of the method's term in its place, that were changed but are not read."""
    name, loss = loss_name(config, method), config.loss
    used: set[str] = set()
    if name is not None and loss.name != "paper":
        used = set(PIXEL_OPTIONS[name])
        if uses_threshold(config, method):
            used |= {"threshold", loss.policy}  # with the settings of the policy of that name
            used |= {"calibrated"} if loss.policy == "conformal" else set()
        elif name == "hard":
            used = {"balance"}
    if gates(config):
        used.add("calibrated")
    plain, given = LossConfig().model_dump(exclude={"name"}), loss.model_dump()
    unread = method.pixel_only if name is None else method.paper_only
    usual, chosen = (own.model_dump() for own in (method.Config(), choose_method(config)[1]))
    return [
        *(f"loss.{key}" for key, value in plain.items() if key not in used and given[key] != value),
        *(f"method.{key}" for key in unread if chosen[key] != usual[key]),
    ]


def pixel_options(loss: LossConfig, name: str) -> dict[str, Any]:
    """The options that the loss of this name takes, but for the threshold."""
    return loss.model_dump(include=set(PIXEL_OPTIONS[name]))


def build_supervised_loss(settings: SupervisedConfig, classes: int) -> SupervisedLoss:
    """The loss on labelled pixels. Raises ConfigError where the number of class weights is not that of the classes."""
    weights = settings.class_weights
    if weights is not None and len(weights) != classes:
        raise ConfigError(f"supervised.class_weights: found {len(weights)} weights, expected {classes}, one per class")
    return SupervisedLoss(
        settings.name,
        ohem_threshold=settings.ohem_threshold,
        ohem_min_kept=settings.ohem_min_kept,
        class_weights=weights,
        label_smoothing=settings.label_smoothing,
        dice=settings.dice,
    )


def build_network(config: Config, classes: int, learners: int, own: Network | None = None) -> Network:
    """A factory of networks; its n-th call starts from the n-th file of `init`. Raises ConfigError.

    own: the user's factory, which is called in place of segmentation_models_pytorch.
    """
    init = config.init or []
    if init and len(init) != learners:
        raise ConfigError(
            f"--init: found {len(init)} file(s), but method {config.method.name!r} trains {learners} network(s): give "
            f"{learners}, separated by commas"
            + (", each trained from another seed (equal networks teach each other nothing)" if learners > 1 else "")
        )
    network = config.network
    try:
        files = [network_file(Path(path)) for path in init]
    except ValueError as error:
        raise ConfigError(f"--init: {error}") from None
    if own is not None:
        return _OwnFactory(own, files, config.network.channels, classes, config.train.crop)
    return NetworkFactory(
        network.arch,
        network.encoder,
        weights="none" if init else network.weights,  # the init files hold the encoder too
        channels=network.channels,
        classes=classes,
        output_stride=network.output_stride,
        options=network.options,
        init=init,
    )


@dataclass
class _OwnFactory:
    """Networks of the user's factory; the n-th call loads the n-th file."""

    make: Network
    files: list[Path]
    channels: int
    classes: int
    crop: tuple[int, int]

    def __call__(self) -> nn.Module:
        network = self.make()
        self._try(network)
        if self.files:
            load_network(network, self.files.pop(0))
        return network

    def _try(self, network: nn.Module) -> None:
        """Raises ConfigError where the network does not give the logits that training needs."""
        with torch.no_grad(), evaluating(network):
            logits = network(torch.zeros(1, self.channels, *self.crop))
        found = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        if not isinstance(logits, torch.Tensor) or logits.dim() != 4 or logits.shape[1] != self.classes:
            raise ConfigError(
                f"network: for an image (1, {self.channels}, {self.crop[0]}, {self.crop[1]}) it returned "
                f"{found}; expected logits (1, {self.classes}, h, w), one channel per class of the data"
            )


def build_method(config: Config, facts: Facts, network: Network | None, threshold: float | Policy) -> Method:
    """The method with its networks, on the CPU. threshold: T, or what sets it."""
    chosen, own = choose_method(config)
    factory = build_network(config, facts.classes, chosen.learners, network)
    supervised = build_supervised_loss(config.supervised, facts.classes)
    if isinstance(config.loss.rule, int) and config.loss.rule >= facts.classes:
        raise ConfigError(f"loss.rule: found K = {config.loss.rule} for {facts.classes} classes; expected fewer")
    method = chosen(factory, supervised, build_pixel_loss(config, chosen, threshold), own, facts)
    for built in method.networks():
        divisor = int(getattr(built, "divisor", 1))
        crop = config.train.crop
        if any(side % divisor for side in crop):
            fits = [max(divisor, round(side / divisor) * divisor) for side in crop]
            raise ConfigError(
                f"--crop: found {crop[0]}x{crop[1]}; the network takes multiples of {divisor}, as {fits[0]}x{fits[1]}"
            )
    return method


def notes_of(config: Config, method: Method) -> list[str]:
    """What is to be told before the training: the method's own notes, and dropout in the pseudo labels."""
    notes, networks = method.notes(config.train.crop), list(method.networks())
    parts = [part for network in networks for part in network.modules() if isinstance(part, _DropoutNd)]
    most = max((part.p for part in parts), default=0.0)
    if method.shares_forward and most > 0:
        names = dropout_options(config.network.arch) if isinstance(networks[0], Segmenter) else []
        still = [f"network.{name}=0" for name in names if config.network.options.get(name) != 0]
        notes.append(
            f"pseudo labels come from the forward that also trains, so the network's dropout (p up to {most:g}) is in "
            f"them; to take it away {'set ' + ' '.join(still) if still else 'build the network without dropout'}"
        )
    return notes


def optimisers_of(config: Config, method: Method) -> list[Optimizer]:
    """The optimisers of the method's roles."""
    optim = config.optim
    return build_optimisers(
        method.roles(),
        method,
        name=optim.name,
        lr=optim.lr,
        momentum=optim.momentum,
        weight_decay=optim.weight_decay,
        decay_norm=optim.decay_norm,
        head_lr_factor=optim.head_lr_factor,
    )
