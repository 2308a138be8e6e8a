"""Optimisers for the parameter roles, and learning-rate schedules."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from fuzzyseg.methods.base import Role

OPTIMISERS: dict[str, Callable[[list[dict[str, Any]], float], Optimizer]] = {
    "sgd": lambda groups, momentum: SGD(groups, lr=0.0, momentum=momentum),
    "adam": lambda groups, momentum: Adam(groups, lr=0.0),
    "adamw": lambda groups, momentum: AdamW(groups, lr=0.0),
}
"""Constructors by name. Arguments: parameter groups, which set learning rate and weight decay, and the momentum."""


SCHEDULES: dict[str, Callable[[float, float], float]] = {
    "poly": lambda progress, power: (1.0 - progress) ** power,
    "constant": lambda progress, power: 1.0,
    "cosine": lambda progress, power: 0.5 * (1.0 + math.cos(math.pi * progress)),
}
"""Learning-rate factors by name, for progress in [0, 1) and a power. poly: Chen et al., "DeepLab", TPAMI 2018."""


def build_optimisers(
    roles: Mapping[str, Role],
    module: nn.Module,
    *,
    name: str,
    lr: float,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    decay_norm: bool = False,
    head_lr_factor: float = 1.0,
) -> list[Optimizer]:
    """Build one optimiser per optimiser name in the roles; roles without one use `name`.

    A role's learning rate is its `lr` or, by default, `lr` times its factor, times `head_lr_factor` unless the role is
    `backbone`. Unless `decay_norm` is set, biases and norm parameters (at most one axis) are not decayed. Each group
    stores its `role`, `initial_lr` and, if set, the role's `betas`. Raises ValueError for an unknown optimiser, if a
    trainable parameter of `module` is in no role or in two, or if a role contains any other parameter.
    """
    _check_cover(roles, module)
    groups: dict[str, list[dict[str, Any]]] = {}
    for role_name, role in roles.items():
        base = role.lr
        if base is None:
            base = lr * role.lr_factor * (1.0 if role_name == "backbone" else head_lr_factor)
        undecayed = [p for p in role.params if p.dim() <= 1 and not decay_norm]
        decayed = [p for p in role.params if p.dim() > 1 or decay_norm]
        for params, decay in ((decayed, weight_decay if role.decay else 0.0), (undecayed, 0.0)):
            if params:
                group = {"params": params, "lr": base, "initial_lr": base, "weight_decay": decay, "role": role_name}
                betas = {} if role.betas is None else {"betas": role.betas}
                groups.setdefault(role.optimiser or name, []).append({**group, **betas})
    for kind in groups:
        if kind not in OPTIMISERS:
            raise ValueError(f"optimiser: found {kind!r}; expected one of {', '.join(sorted(OPTIMISERS))}")
    return [OPTIMISERS[kind](members, momentum) for kind, members in groups.items()]


def _check_cover(roles: Mapping[str, Role], module: nn.Module) -> None:
    names = {id(p): name for name, p in module.named_parameters() if p.requires_grad}
    owner: dict[int, str] = {}
    for role_name, role in roles.items():
        for parameter in role.params:
            name = names.get(id(parameter))
            if name is None:
                raise ValueError(f"role {role_name!r} has a parameter that the method does not have or train")
            if id(parameter) in owner:
                raise ValueError(f"parameter {name!r} is in two roles: {owner[id(parameter)]!r} and {role_name!r}")
            owner[id(parameter)] = role_name
    missing = sorted(name for key, name in names.items() if key not in owner)
    if missing:
        raise ValueError(f"trainable parameters in no role: {', '.join(missing)}; add them to the method's roles()")


def rate_factor(step: int, steps: int, schedule: str, power: float, warmup: int) -> float:
    """Return the factor applied to the base learning rates at `step`, the number of finished steps.

    Without warm-up it is 1 at step 0 and still positive at the last step. Warm-up rises linearly to 1 over `warmup`
    steps and multiplies the schedule without shifting it.
    """
    warm = min(1.0, (step + 1) / warmup) if warmup > 0 else 1.0
    return warm * SCHEDULES[schedule](step / steps, power)


def set_rates(optimisers: Sequence[Optimizer], factor: float) -> None:
    """Set each learning rate to `factor` times its base value."""
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = group["initial_lr"] * factor


def rates(optimisers: Sequence[Optimizer]) -> dict[str, float]:
    """Return the current learning rate of each role."""
    return {group["role"]: group["lr"] for optimiser in optimisers for group in optimiser.param_groups}
