"""Sharded training (FSDP2): each process stores a part of every weight, gradient and optimiser state.

S. Rajbhandari et al., "ZeRO: Memory optimizations toward training trillion parameter models", SC 2020.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from fuzzyseg.methods.base import Method
from fuzzyseg.ops import distributed


def encoder_blocks(module: nn.Module) -> list[nn.Module]:
    """Return the transformer blocks of encoders, innermost first: modules with a submodule `attn`, as in timm."""
    named = [each for name, each in module.named_modules() if "encoder." in name]
    return [each for each in reversed(named) if isinstance(getattr(each, "attn", None), nn.Module)]


class Sharding:
    """Shards a method in place across all processes, whose weights must be equal. Create it before the optimisers.

    The weights of an encoder block are gathered for its forward pass and again for its backward pass; all others are
    gathered at the start of the method's `forward` and kept until the end of the backward pass.
    """

    def __init__(self, method: Method, device: torch.device) -> None:
        self._predictor = copy.deepcopy(method.predictor())
        self._mesh = init_device_mesh(device.type, (distributed.world_size(),))
        self.shard(method)

    def shard(self, module: nn.Module) -> None:
        """Shard a module's weights in place."""
        for each in (*encoder_blocks(module), module):
            fully_shard(each, mesh=self._mesh)

    def copy_of_predictor(self) -> nn.Module:
        """Return an unsharded copy of the method's predictor, as it was before the first step."""
        return copy.deepcopy(self._predictor)

    def whole(self, predictor: nn.Module) -> nn.Module:
        """Return one unsharded network with the weights and buffers of the sharded one. Call it on every process."""
        self._predictor.load_state_dict(gathered(predictor.state_dict()))
        return self._predictor

    def gather(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return a state with whole tensors on rank 0, and None in their place on others. Call it on every process."""
        return {name: gathered(value, keep=distributed.rank() == 0) for name, value in state.items()}

    def split(
        self, state: Mapping[str, Any], modules: Mapping[str, nn.Module], optimisers: Sequence[Optimizer]
    ) -> dict[str, Any]:
        """Return `state`, a result of `gather` with `modules` and `optimisers`, with tensors sharded like theirs."""
        parts = {}
        for name, module in modules.items():
            now = module.state_dict()
            parts[name] = {key: _sharded(value, now.get(key)) for key, value in state["modules"][name].items()}
        moved = []
        for optimiser, saved in zip(optimisers, state["optimisers"], strict=True):
            params = [param for group in optimiser.param_groups for param in group["params"]]
            each = {
                place: {key: _sharded(value, params[place]) for key, value in values.items()}
                for place, values in saved["state"].items()
            }
            moved.append({**saved, "state": each})
        return {**state, "modules": parts, "optimisers": moved}


def gathered(values: Any, keep: bool = True) -> Any:
    """Return nested containers with sharded tensors replaced by whole ones on the CPU if `keep`, otherwise by None."""
    if isinstance(values, DTensor):
        whole = values.full_tensor()
        return whole.cpu() if keep else None
    if isinstance(values, Mapping):
        return {name: gathered(value, keep) for name, value in values.items()}
    return [gathered(value, keep) for value in values] if isinstance(values, list) else values


def _sharded(value: Any, like: Tensor | None) -> Any:
    """Shard a whole tensor as `like` is sharded; return any other value unchanged."""
    if isinstance(like, DTensor) and isinstance(value, Tensor) and value.shape == like.shape:
        return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)
    return value
