"""Construction of method, pseudo-label loss, networks and optimisers from the configuration."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self, TypeVar

import torch
from pydantic import BaseModel, ValidationError
from torch import nn
from torch.nn.modules.dropout import _DropoutNd  # private: torch's dropout layers have no public base class
from torch.optim import Optimizer

from fuzzyseg.config import Config, ConfigError, LossConfig, NetworkConfig, OptimConfig, SupervisedConfig
from fuzzyseg.config.load import describe, nearest
from fuzzyseg.engine.optim import build_optimisers
from fuzzyseg.experiment.threshold_policy import threshold_of
from fuzzyseg.losses import PIXEL_LOSSES, PIXEL_OPTIONS, SET_LOSSES, PixelFunction, PixelLossModule, SupervisedLoss
from fuzzyseg.methods import Facts, Method, MethodConfig
from fuzzyseg.methods.base import Network
from fuzzyseg.networks import NetworkFactory, Segmenter, build_network, dropout_options
from fuzzyseg.ops.module_mode import evaluating
from fuzzyseg.plugins import losses, methods

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")


@dataclass(frozen=True)
class Setup:
    """Method, losses and network, resolved once from the configuration.

    method, options: the method's class and its settings. pixel_loss, function, arguments: name, function and keyword
    arguments (without the threshold) of the pseudo-label loss; None if the method uses none. loss, supervised, network,
    init, crop: the settings, unchanged. own_network: factory for a custom network, used instead of `network`.
    """

    name: str
    method: type[Method]
    options: MethodConfig
    pixel_loss: str | None
    function: PixelFunction | None
    arguments: dict[str, Any]
    loss: LossConfig
    supervised: SupervisedConfig
    network: NetworkConfig
    init: list[str]
    crop: tuple[int, int]
    own_network: Network | None = None

    def resumed(self) -> Self:
        """Return a copy without initial weights, since a checkpoint replaces them."""
        return replace(self, init=[], network=self.network.model_copy(update={"weights": "none"}))

    @property
    def uses_threshold(self) -> bool:
        """Whether T has an effect: for losses over a set, `hard` with `balance`, and custom losses with `threshold`."""
        if self.loss.name == "paper" or self.function is None:
            return False
        if self.pixel_loss in PIXEL_LOSSES:
            return self.pixel_loss in SET_LOSSES or (self.pixel_loss == "hard" and self.loss.balance)
        return "threshold" in inspect.signature(self.function).parameters

    @property
    def calibrates(self) -> bool:
        """Whether T is chosen on held-back images."""
        return self.uses_threshold and self.loss.policy in ("calibrated", "conformal")

    @property
    def gates(self) -> bool:
        """Whether held-back labels determine if the loss is restricted to confident pixels."""
        return getattr(self.options, "confidence", None) == "gate"

    @property
    def idle(self) -> list[str]:
        """Settings of the pseudo-label loss, or of the method's loss term, that were changed but have no effect."""
        name, loss = self.pixel_loss, self.loss
        used: set[str] = set()
        if name is not None and loss.name != "paper":
            used = set(PIXEL_OPTIONS.get(name, ("options",)))
            if self.uses_threshold:
                used |= {"threshold", loss.policy}  # a policy's section is named after it
                used |= {"calibrated"} if loss.policy == "conformal" else set()
            elif name == "hard":
                used = {"balance"}
        if self.gates:
            used.add("calibrated")
        usual, given = LossConfig().model_dump(exclude={"name"}), loss.model_dump()
        unread = self.method.pixel_only if name is None else self.method.paper_only
        return [
            *(f"loss.{key}" for key, value in usual.items() if key not in used and given[key] != value),
            *(f"method.{key}" for key in unread if getattr(self.options, key) != getattr(self.method.Config(), key)),
        ]


def resolve(
    config: Config,
    *,
    method: type[Method] | None = None,
    loss: PixelFunction | None = None,
    network: Network | None = None,
) -> Setup:
    """Look up the method and the loss, and validate their settings. Reads no files.

    method, loss, network: custom objects, used instead of those named in `config`. Raises ConfigError for an unknown
    name, an invalid setting, or a loss that the method does not support.
    """
    if config.seed >= 2**63:
        raise ConfigError(f"seed: found {config.seed}; expected a number below 2**63")
    if config.optim.warmup >= config.train.steps:
        steps = config.train.steps
        raise ConfigError(f"optim.warmup: found {config.optim.warmup} steps for a run of {steps}; expected fewer")
    chosen = method or _named("method", config.method.name, methods())
    options = _validated(chosen.Config, config.method.options, "method")
    # `paper` is the pixel loss of the method's paper, if it has one. The policy for T then has no effect.
    name, arguments = config.loss.name, {}
    pixel_loss: str | None = name
    function: PixelFunction | None = None
    if name == "paper":
        pixel_loss, arguments = chosen.paper_loss or (None, {})
        function = None if pixel_loss is None else PIXEL_LOSSES[pixel_loss]
    else:
        function = loss or _named("loss", name, losses(), "paper")
        refusal = chosen.refuses.get(name if name in PIXEL_LOSSES else "hard")
        if refusal is not None:
            raise ConfigError(f"loss {name!r} with method {config.method.name!r} {refusal}")
        custom, known = loss is not None or name not in PIXEL_LOSSES, {*PIXEL_OPTIONS.get(name, ())}
        arguments = _arguments(function, config.loss.options) if custom else config.loss.model_dump(include=known)
    sections = config.loss, config.supervised, config.network, config.init or [], config.train.crop
    return Setup(config.method.name, chosen, options, pixel_loss, function, dict(arguments), *sections, network)


def _named(what: str, name: str, table: Mapping[str, T], *more: str) -> T:
    if name not in table:
        raise ConfigError(f"{what}: found {name!r}.{nearest(name, [*more, *table])}")
    return table[name]


def _validated(kind: type[M], given: Mapping[str, Any], section: str) -> M:
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        raise ConfigError(describe(error, section, kind.model_fields)) from None


def _arguments(function: PixelFunction, given: Mapping[str, Any]) -> dict[str, Any]:
    """Validate a custom loss's `options` with the pydantic model that annotates this parameter."""
    parameter = inspect.signature(function, eval_str=True).parameters.get("options")
    if parameter is not None:
        return {"options": _validated(parameter.annotation, given, "loss.options")}
    if given:
        raise ConfigError(f"loss.options: found {', '.join(given)}; the loss has no parameter `options`")
    return {}


def build_method(setup: Setup, facts: Facts, weights: Sequence[float] | None = None) -> Method:
    """Build the method with its networks, on the CPU. weights: supervised class weights. Raises ConfigError."""
    pixel_loss = None
    threshold = threshold_of(setup.loss, facts)
    if setup.function is not None:
        pixel_loss = PixelLossModule(setup.function, setup.arguments, threshold)
    for key, value in (("rule", setup.loss.rule), ("k_cap", setup.loss.k_cap)):
        if isinstance(value, int) and value >= facts.classes:
            raise ConfigError(f"loss.{key}: found K = {value} for {facts.classes} classes; expected fewer")
    if weights is not None and len(weights) != facts.classes:
        expected = f"expected {facts.classes}, one per class"
        raise ConfigError(f"supervised.class_weights: found {len(weights)} weights, {expected}")
    supervised = SupervisedLoss(**setup.supervised.model_dump(exclude={"class_weights"}), class_weights=weights)
    method = setup.method(network_factory(setup, facts.classes), supervised, pixel_loss, setup.options, facts)
    for built in method.networks():
        divisor, crop = int(getattr(built, "divisor", 1)), setup.crop
        if any(side % divisor for side in crop):
            fits = [max(divisor, round(side / divisor) * divisor) for side in crop]
            fitting = f"expected multiples of {divisor}, such as {fits[0]}x{fits[1]}"
            raise ConfigError(f"--crop: found {crop[0]}x{crop[1]}; {fitting}")
    return method


def network_factory(setup: Setup, classes: int) -> NetworkFactory:
    """Return a network factory whose n-th call loads the n-th file of `init`. Raises ConfigError."""
    init, network, learners, custom = setup.init, setup.network, setup.method.learners, setup.own_network
    if init and len(init) != learners:
        raise ConfigError(
            f"--init: found {len(init)} file(s), but the method trains {learners} network(s): give {learners} files, "
            "separated by commas"
            + ", trained from different seeds (equal networks learn nothing from each other)"
            * (learners > 1)
        )
    options = network.model_dump(include={"weights", "channels", "output_stride", "checkpointing"}) | {
        "options": network.options
    }
    if init:
        options["weights"] = "none"  # the init files also contain the encoder
    make = partial(build_network, network.arch, network.encoder, classes=classes, **options)
    try:
        return NetworkFactory(make if custom is None else partial(_checked, custom, setup, classes), init)
    except ValueError as error:
        raise ConfigError(f"--init: {error}") from None


def _checked(make: Network, setup: Setup, classes: int) -> nn.Module:
    """Build a network with the user's factory. Raises ConfigError unless it maps a crop to logits (B,C,h,w)."""
    network, shape = make(), (1, setup.network.channels, *setup.crop)
    with torch.no_grad(), evaluating(network):
        logits = network(torch.zeros(shape))
    if not isinstance(logits, torch.Tensor) or logits.dim() != 4 or logits.shape[1] != classes:
        result = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        expected = f"expected logits (1, {classes}, h, w), one channel per class"
        raise ConfigError(f"network: for an image {shape} it returned {result}; {expected}")
    return network


def notes_of(setup: Setup, method: Method) -> list[str]:
    """Return notes to show before training: the method's notes, and one about dropout in pseudo labels."""
    notes, networks = method.notes(setup.crop), list(method.networks())
    parts = [part for network in networks for part in network.modules() if isinstance(part, _DropoutNd)]
    largest = max((part.p for part in parts), default=0.0)
    if method.shares_forward and largest > 0:
        names = dropout_options(setup.network.arch) if isinstance(networks[0], Segmenter) else []
        still = [f"network.{name}=0" for name in names if setup.network.options.get(name) != 0]
        notes.append(
            f"pseudo labels come from the forward pass that trains, with the network's dropout (p up to {largest:g}); "
            f"to disable it {'set ' + ' '.join(still) if still else 'build the network without dropout'}"
        )
    return notes


def optimisers_of(optim: OptimConfig, method: Method) -> list[Optimizer]:
    """Build one optimiser per optimiser role of the method."""
    names = {"name", "lr", "momentum", "weight_decay", "decay_norm", "head_lr_factor"}
    return build_optimisers(method.roles(), method, **optim.model_dump(include=names))
