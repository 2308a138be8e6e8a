"""Construction of optimisers from parameter roles."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from fuzzyseg.methods.base import Role

OPTIMISERS: dict[str, Callable[[list[dict[str, Any]], float], Optimizer]] = {
    "sgd": lambda groups, momentum: SGD(groups, lr=0.0, momentum=momentum),
    "adam": lambda groups, momentum: Adam(groups, lr=0.0),
    "adamw": lambda groups, momentum: AdamW(groups, lr=0.0),
}
"""Name -> constructor from parameter groups and a momentum; each group has its own learning rate and weight decay."""


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
    """Build one optimiser per name in the roles; roles without a name use `name`.

    A role's learning rate is its `lr` or, by default, `lr` times its factor, times `head_lr_factor` unless the role is
    `backbone`. Without `decay_norm`, biases and norm parameters (at most one axis) are not decayed. Each group stores
    its `role`, `initial_lr` and, if set, the role's `betas`. Raises ValueError for an unknown optimiser, for a
    trainable parameter of `module` in no role or in two, and for any other parameter in a role.
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


def _check_cover(roles: Mapping[str, Role], module: nn.Module) -> None:
    names = {id(p): name for name, p in module.named_parameters() if p.requires_grad}
    found: dict[int, str] = {}
    for role_name, role in roles.items():
        for parameter in role.params:
            name = names.get(id(parameter))
            if name is None:
                raise ValueError(f"role {role_name!r} holds a parameter that the method lacks or does not train")
            if id(parameter) in found:
                raise ValueError(f"parameter {name!r} is in two roles: {found[id(parameter)]!r} and {role_name!r}")
            found[id(parameter)] = role_name
    missing = sorted(name for key, name in names.items() if key not in found)
    if missing:
        raise ValueError(f"trainable parameters in no role: {', '.join(missing)}; add them to the method's roles()")
