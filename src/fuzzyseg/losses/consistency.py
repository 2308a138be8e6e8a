"""Distances between the student's and the teacher's whole prediction, pixel by pixel: squared error, KL and JS.

They share the call of the pseudo-label losses: `(student_logits, teacher, *, size, valid) -> (B,H,W)`. Logits
(B,C,h,w), the teacher's possibly `Mixed`, are brought to `size` = (H,W); the teacher is detached; all is computed in
fp32 (fp64 stays); the map is 0 where `valid` (B,H,W) is 0. q are the student's probabilities, p the teacher's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from fuzzyseg.losses.base import at_size, check_map, check_pair, full_precision
from fuzzyseg.ops.mix import Mixed


def squared_error(
    student_logits: Tensor,
    teacher: Tensor | Mixed,
    *,
    size: Sequence[int],
    valid: Tensor,
    of: Literal["probabilities", "logits"] = "probabilities",
) -> Tensor:
    """Sum over the classes of (q - p)^2: in [0, 2]. A paper that averages over the classes divides it by C.

    of="logits": of the logits themselves, unbounded and not indifferent to a constant that is added to all of them.
    """

    def distance(z: Tensor, t: Tensor) -> Tensor:
        if of == "probabilities":
            z, t = torch.softmax(z, 1), torch.softmax(t, 1)
        return (z - t).square().sum(1)

    return _map(distance, student_logits, teacher, size, valid)


def kl_divergence(student_logits: Tensor, teacher: Tensor | Mixed, *, size: Sequence[int], valid: Tensor) -> Tensor:
    """KL(p || q), the sum over the classes of p (log p - log q)."""
    return _map(
        lambda z, t: _kl(torch.log_softmax(t, 1), torch.log_softmax(z, 1)), student_logits, teacher, size, valid
    )


def js_divergence(student_logits: Tensor, teacher: Tensor | Mixed, *, size: Sequence[int], valid: Tensor) -> Tensor:
    """(KL(p || m) + KL(q || m)) / 2 with m = (p + q) / 2, the divergence of Jensen and Shannon: in [0, log 2]."""

    def distance(z: Tensor, t: Tensor) -> Tensor:
        log_q, log_p = torch.log_softmax(z, 1), torch.log_softmax(t, 1)
        log_m = torch.logaddexp(log_p, log_q) - math.log(2)
        return (_kl(log_p, log_m) + _kl(log_q, log_m)) / 2

    return _map(distance, student_logits, teacher, size, valid)


def _kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    return (log_p.exp() * (log_p - log_q)).sum(1)


def _map(
    distance: Callable[[Tensor, Tensor], Tensor],
    student_logits: Tensor,
    teacher: Tensor | Mixed,
    size: Sequence[int],
    valid: Tensor,
) -> Tensor:
    """The distance (B,H,W) of student and detached teacher logits (B,C,H,W) at `size`; 0 where not valid."""
    check_map("valid", valid, check_pair(student_logits, teacher, size), student_logits.device)
    with full_precision(student_logits.device):
        student = at_size(student_logits, size)
        with torch.no_grad():
            target = at_size(teacher, size)
        return torch.where(valid > 0, distance(student, target), 0)


def confidence_map(teacher: Tensor | Mixed, size: Sequence[int]) -> Tensor:
    """The teacher's largest probability at each pixel of `size`: (B,H,W), without gradient."""
    device = teacher.a.device if isinstance(teacher, Mixed) else teacher.device
    with torch.no_grad(), full_precision(device):
        return torch.softmax(at_size(teacher, size), 1).amax(1)
