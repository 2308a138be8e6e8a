"""Per-pixel distances between student and teacher predictions: squared error and KL divergence.

They have the signature of the pseudo-label losses: `(student_logits, teacher, *, size, valid) -> (B,H,W)`. Logits
(B,C,h,w), or `Mixed` for the teacher, are interpolated to `size` = (H,W). The teacher is detached. Distances are
computed in fp32 (fp64 stays fp64) and are 0 where `valid` (B,H,W) is 0. Notation: q, the student's probabilities; p,
the teacher's.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from fuzzyseg.losses.base import at_one_size, at_size, check_map, check_pair, full_precision
from fuzzyseg.ops.mix import Mixed


def squared_error(
    student_logits: Tensor,
    teacher: Tensor | Mixed,
    *,
    size: Sequence[int],
    valid: Tensor,
    of: Literal["probabilities", "logits"] = "probabilities",
) -> Tensor:
    """Return the sum over classes of (q - p)^2, in [0, 2].

    of="logits" compares logits instead. The result is then unbounded, and adding a constant to all logits changes it.
    """

    def distance(z: Tensor, t: Tensor) -> Tensor:
        if of == "probabilities":
            z, t = torch.softmax(z, 1), torch.softmax(t, 1)
        return (z - t).square().sum(1)

    return _map(distance, student_logits, teacher, size, valid)


def mean_squared_error(student_logits: Tensor, teacher: Tensor | Mixed, **given: Any) -> Tensor:
    """Return `squared_error` divided by the number of classes."""
    return squared_error(student_logits, teacher, **given) / student_logits.shape[1]


def kl_divergence(student_logits: Tensor, teacher: Tensor | Mixed, *, size: Sequence[int], valid: Tensor) -> Tensor:
    """Return KL(p || q): the sum over classes of p (log p - log q)."""

    def distance(z: Tensor, t: Tensor) -> Tensor:
        log_p, log_q = torch.log_softmax(t, 1), torch.log_softmax(z, 1)
        return (log_p.exp() * (log_p - log_q)).sum(1)

    return _map(distance, student_logits, teacher, size, valid)


def _map(
    distance: Callable[[Tensor, Tensor], Tensor],
    student_logits: Tensor,
    teacher: Tensor | Mixed,
    size: Sequence[int],
    valid: Tensor,
) -> Tensor:
    """Apply `distance` to student and detached teacher logits (B,C,H,W) at `size`: (B,H,W), 0 where invalid."""
    check_map("valid", valid, check_pair(student_logits, teacher, size), student_logits.device)
    with full_precision(student_logits.device):
        return torch.where(valid > 0, distance(*at_one_size(student_logits, teacher, size)), 0)


def confidence_map(teacher: Tensor | Mixed, size: Sequence[int]) -> Tensor:
    """Return the teacher's largest probability at each pixel after resizing to `size`: (B,H,W), without gradient."""
    device = teacher.a.device if isinstance(teacher, Mixed) else teacher.device
    with torch.no_grad(), full_precision(device):
        return torch.softmax(at_size(teacher, size), 1).amax(1)
