"""Optimisers from parameter roles, and learning-rate schedules as pure functions of the step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from fuzzyseg.methods.base import Role

OPTIMISERS: dict[str, Callable[[list[dict[str, Any]], float], Optimizer]] = {
    "sgd": lambda groups, momentum: SGD(groups, lr=0.0, momentum=momentum),
    "adam": lambda groups, momentum: Adam(groups, lr=0.0),
    "adamw": lambda groups, momentum: AdamW(groups, lr=0.0),
}
"""Name -> optimiser of parameter groups and a momentum; each group has its own learning rate and weight decay."""

SCHEDULES: dict[str, Callable[[float, float], float]] = {
    "poly": lambda progress, power: (1.0 - progress) ** power,
    "constant": lambda progress, power: 1.0,
    "cosine": lambda progress, power: 0.5 * (1.0 + math.cos(math.pi * progress)),
}
"""Name -> factor of the learning rate at a progress in [0, 1). poly: Chen et al., "DeepLab", TPAMI 2018."""


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
    """One optimiser for each name in the roles; `name` is that of roles without one.

    A role's learning rate is its `lr`, or `lr` times its factor, times `head_lr_factor` unless it is called `backbone`.
    Without `decay_norm`, biases and norm parameters (at most one axis) are not decayed. Each group has its `role`,
    `initial_lr`, and the role's `betas`, if any. Raises ValueError for an unknown optimiser, for a trainable parameter
    of `module` in no role or in two, and for any other parameter in a role.
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
                own = {} if role.betas is None else {"betas": role.betas}
                groups.setdefault(role.optimiser or name, []).append({**group, **own})
    for wanted in groups:
        if wanted not in OPTIMISERS:
            raise ValueError(f"optimiser: found {wanted!r}; expected one of {', '.join(sorted(OPTIMISERS))}")
    return [OPTIMISERS[wanted](members, momentum) for wanted, members in groups.items()]


def factor(step: int, total: int, *, schedule: str = "poly", power: float = 0.9, warmup: int = 0) -> float:
    """Factor of the base learning rate at `step` (finished steps, from 0) of `total`.

    Without warm-up 1 at step 0, and above 0 at the last step. Warm-up rises linearly to 1 over `warmup` steps and
    multiplies the schedule without shifting it. Raises ValueError for an unknown schedule.
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule: found {schedule!r}; expected one of {', '.join(sorted(SCHEDULES))}")
    warm = min(1.0, (step + 1) / warmup) if warmup > 0 else 1.0
    return warm * SCHEDULES[schedule](step / total, power)


def set_rates(optimisers: Iterable[Optimizer], value: float) -> None:
    """Set the learning rate of every group to `value` times its base rate."""
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = group["initial_lr"] * value


def rates(optimisers: Iterable[Optimizer]) -> dict[str, float]:
    """The current learning rate of each role."""
    return {group["role"]: group["lr"] for optimiser in optimisers for group in optimiser.param_groups}


def _check_cover(roles: Mapping[str, Role], module: nn.Module) -> None:
    names = {id(p): name for name, p in module.named_parameters() if p.requires_grad}
    found: dict[int, str] = {}
    for role_name, role in roles.items():
        for parameter in role.params:
            name = names.get(id(parameter))
            if name is None:
                raise ValueError(
                    f"role {role_name!r} holds a parameter that the method does not have or does not train"
                )
            if id(parameter) in found:
                raise ValueError(f"parameter {name!r} is in two roles: {found[id(parameter)]!r} and {role_name!r}")
            found[id(parameter)] = role_name
    missing = sorted(name for key, name in names.items() if key not in found)
    if missing:
        raise ValueError(f"trainable parameters in no role: {', '.join(missing)}; add them to the method's roles()")
