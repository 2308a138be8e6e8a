"""Memory bank of U2PL's negatives."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fuzzyseg.ops import distributed


class ClassBank(nn.Module):
    """One ring buffer of rows (·,D) per class, concatenated in `rows`; identical on every process.

    Class c occupies `capacity[c]` rows starting at `start[c]`; `filled[c]` of them have been written, and the next key
    goes to position `following[c]`. Keys are gathered from all processes in rank order, without gradient. The rows must
    not be used in a backward pass after the next push.
    """

    rows: Tensor
    start: Tensor
    capacity: Tensor
    following: Tensor
    filled: Tensor

    def __init__(self, sizes: Sequence[int], width: int) -> None:
        """sizes: number of rows per class. width: D."""
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
    def push(self, keys: Tensor, members: Tensor, limit: int | None = None) -> None:
        """Append keys (N,D) to the classes selected by members (N,C) bool, in order, overwriting the oldest rows.

        If a class gets more keys than it has rows, the last ones are kept. limit: upper bound on the number of keys
        that belong to any class, if known; at most that many are communicated and written, in a random order from
        torch's global generator. Does not synchronise with an accelerator.
        """
        if limit is not None:
            chosen = (members.any(1) + torch.rand(len(keys), device=keys.device)).topk(min(limit, len(keys))).indices
            keys, members = keys[chosen], members[chosen]
        keys = distributed.gather(keys.to(self.rows.dtype))
        members = distributed.gather(members)
        place = members.long().cumsum(0) - 1  # (N,C), rank of each member
        counts = members.sum(0)
        surplus = (counts - self.capacity).clamp(min=0)
        number = torch.arange(len(keys), device=keys.device)
        for c, size in enumerate(self.sizes):
            limit = min(size, len(keys))
            ahead = torch.arange(limit, device=keys.device)
            # For each row from the next position on: index of its key, or -1 if none. Other keys share an extra entry.
            step = place[:, c] - surplus[c]
            step = torch.where(members[:, c] & (step >= 0), step, limit)
            source = torch.full((limit + 1,), -1, device=keys.device).scatter_(0, step, number)[:limit]
            where = self._starts[c] + (self.following[c] + surplus[c] + ahead) % size
            kept = self.rows[where]
            self.rows.index_copy_(0, where, torch.where((source >= 0).unsqueeze(1), keys[source.clamp(min=0)], kept))
        self.following.copy_((self.following + counts) % self.capacity)
        self.filled.copy_(torch.minimum(self.filled + counts, self.capacity))

    def draw(self, each: int, count: int) -> Tensor:
        """Sample indices of written `rows`, uniformly with replacement: (C,each,count) int64.

        Uses torch's global generator. The indices are meaningless for classes without written rows (`filled` is 0).
        """
        filled = self.filled.view(-1, 1, 1)
        chance = torch.rand(len(self.sizes), each, count, device=self.rows.device)
        within = torch.minimum((chance * filled).long(), filled - 1).clamp(min=0)
        return self.start.view(-1, 1, 1) + within
