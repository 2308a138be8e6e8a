"""The loss as released by its authors, rewritten for comparison by `loss.py` and `step.py`."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def published(z: Tensor, t: Tensor, threshold: float = 0.9, most: int = 3) -> Tensor:
    """The mean of `published_map`."""
    return published_map(z, t, threshold, most).mean()


def published_map(z: Tensor, t: Tensor, threshold: float = 0.9, most: int = 3) -> Tensor:
    """The computation of the released code: a one-hot mask for each rank, a loop over K, and assignment by
    boolean index. K is 3 at most, the mean of the weight covers the first negative.
    """
    values, classes = torch.softmax(t, 1).topk(most + 1, dim=1)
    masks = {n: F.one_hot(classes[:, n], z.shape[1]).movedim(-1, 1).float() for n in range(most)}
    loss, weight = torch.zeros_like(z[:, 0]), torch.zeros_like(z[:, 0])
    done = torch.zeros_like(loss, dtype=torch.bool)
    members = torch.zeros_like(z)
    for k in range(1, most + 1):
        members = members + masks[k - 1]
        lift = torch.logsumexp(-z - (1 - members) * 1e7, 1)
        push = torch.logsumexp(z - members * 1e7, 1)
        of_k = torch.log(1 + torch.exp(lift + push))
        m, q = values[:, : k + 1].mean(1), values[:, k]
        weight_of_k = torch.log(1 + 50 * (m - q)) / torch.log(1 + 50 * m)
        now = ~done if k == most else ~done & (values[:, : k + 1].sum(1) >= threshold)
        loss[now], weight[now] = of_k[now], weight_of_k[now]
        done = done | now
    return loss * weight
