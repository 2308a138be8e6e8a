"""Memory banks of features: buffers, first in, first out, the same on every process.

What is pushed is gathered over the processes in rank order and gets no gradient. A bank must be pushed to before it is
read in a step; its rows must not be read again for a backward pass once the next step has begun.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fuzzyseg.ops import distributed


class StepBank(nn.Module):
    """The rows of the last `steps` pushes, newest last; it starts empty and grows to that.

    features (R,D) fp32; classes (R,) int64, or (R,C) bool for sets of classes; valid (R,) bool. How full it is stands
    in the buffers' shape, so that reading it never waits for an accelerator. Every push brings the same number of rows.
    """

    features: Tensor
    classes: Tensor
    valid: Tensor

    def __init__(self, steps: int, width: int, classes: int | None = None) -> None:
        """width: D. classes: C where sets are kept; None: class indices."""
        super().__init__()
        if steps < 1:
            raise ValueError(f"steps: found {steps}, expected at least 1")
        self.steps = steps
        self.register_buffer("features", torch.zeros(0, width))
        empty = torch.zeros(0, dtype=torch.long) if classes is None else torch.zeros(0, classes, dtype=torch.bool)
        self.register_buffer("classes", empty)
        self.register_buffer("valid", torch.zeros(0, dtype=torch.bool))

    @torch.no_grad()
    def push(self, features: Tensor, classes: Tensor, valid: Tensor) -> None:
        """Rows of one step, as the buffers have them; those of the oldest step beyond `steps` leave."""
        features = distributed.gather(features.to(self.features.dtype))
        keep = self.steps * len(features)
        self.features = torch.cat([self.features, features])[-keep:] if keep else self.features
        self.classes = torch.cat([self.classes, _gather(classes)])[-keep:] if keep else self.classes
        self.valid = torch.cat([self.valid, _gather(valid)])[-keep:] if keep else self.valid

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Takes the number of rows that the state has."""
        for name, buffer in self.named_buffers():
            saved = state_dict.get(prefix + name)
            if saved is not None and saved.shape[1:] == buffer.shape[1:]:
                setattr(self, name, buffer.new_zeros(saved.shape))
        super()._load_from_state_dict(state_dict, prefix, *rest)


class ClassBank(nn.Module):
    """A ring of rows (·,D) for each class, of its own size: `rows` holds them one after the other.

    Class c owns the `capacity[c]` rows from `start[c]` on; the first `filled[c]` of them have been written, and the
    next one goes to place `following[c]`.
    """

    rows: Tensor
    start: Tensor
    capacity: Tensor
    following: Tensor
    filled: Tensor

    def __init__(self, sizes: Sequence[int], width: int) -> None:
        """sizes: rows for each class. width: D."""
        super().__init__()
        if min(sizes) < 1:
            raise ValueError(f"sizes: found {tuple(sizes)}, expected at least one row for each class")
        self.sizes = tuple(sizes)
        starts = torch.tensor([0, *self.sizes[:-1]]).cumsum(0)
        self._starts = starts.tolist()
        self.register_buffer("rows", torch.zeros(sum(self.sizes), width))
        self.register_buffer("start", starts, persistent=False)
        self.register_buffer("capacity", torch.tensor(self.sizes), persistent=False)
        self.register_buffer("following", torch.zeros(len(self.sizes), dtype=torch.long))
        self.register_buffer("filled", torch.zeros(len(self.sizes), dtype=torch.long))

    @torch.no_grad()
    def push(self, keys: Tensor, members: Tensor, most: int | None = None) -> None:
        """Appends to each class the keys (N,D) that members (N,C) bool name, in order; the oldest rows leave.

        Of more keys than a class has rows the last ones stay. most: how many keys belong to any class at most, where
        that is known; only so many are then sent and written, in an order drawn by torch's global generator. Nothing
        is read back from an accelerator.
        """
        if most is not None:
            chosen = (members.any(1) + torch.rand(len(keys), device=keys.device)).topk(min(most, len(keys))).indices
            keys, members = keys[chosen], members[chosen]
        keys = distributed.gather(keys.to(self.rows.dtype))
        members = _gather(members)
        place = members.long().cumsum(0) - 1  # (N,C), from 0 for the members
        counts = members.sum(0)
        surplus = (counts - self.capacity).clamp(min=0)
        number = torch.arange(len(keys), device=keys.device)
        for c, size in enumerate(self.sizes):
            most = min(size, len(keys))
            ahead = torch.arange(most, device=keys.device)
            # Which key comes where from here; the others meet in one place more. Negative: the row there stays.
            step = place[:, c] - surplus[c]
            step = torch.where(members[:, c] & (step >= 0), step, most)
            source = torch.full((most + 1,), -1, device=keys.device).scatter_(0, step, number)[:most]
            where = self._starts[c] + (self.following[c] + surplus[c] + ahead) % size
            kept = self.rows[where]
            self.rows.index_copy_(0, where, torch.where((source >= 0).unsqueeze(1), keys[source.clamp(min=0)], kept))
        self.following.copy_((self.following + counts) % self.capacity)
        self.filled.copy_(torch.minimum(self.filled + counts, self.capacity))

    def draw(self, each: int, count: int) -> Tensor:
        """Numbers of `rows`: (C,each,count) int64, evenly with replacement from what each class has.

        Drawn by torch's global generator. Where a class has nothing yet the number means nothing: see `filled`.
        """
        filled = self.filled.view(-1, 1, 1)
        chance = torch.rand(len(self.sizes), each, count, device=self.rows.device)
        within = torch.minimum((chance * filled).long(), filled - 1).clamp(min=0)
        return self.start.view(-1, 1, 1) + within


def _gather(values: Tensor) -> Tensor:
    """`distributed.gather`; bool travels as bytes, for not every backend sends it."""
    if values.dtype == torch.bool:
        return distributed.gather(values.to(torch.uint8)).bool()
    return distributed.gather(values)
