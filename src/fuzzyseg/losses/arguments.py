"""Arguments of the pseudo-label losses: checks of shape and device, full precision, one size.

No check reads a tensor's values, so none synchronises with a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fuzzyseg.ops.mix import Mixed
from fuzzyseg.ops.resize import full_precision as full_precision
from fuzzyseg.ops.resize import resize_logits


def at_least_fp32(values: Tensor) -> Tensor:
    """fp16 and bf16 become fp32; fp32 and fp64 stay."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def at_size(logits: Tensor | Mixed, size: Sequence[int] | None, *, align_corners: bool = True) -> Tensor:
    """Logits (B,C,*size) in fp32 or fp64; those of two images are resized, then mixed. size None: as is."""
    if isinstance(logits, Mixed):
        a = at_size(logits.a, size, align_corners=align_corners)
        b = at_size(logits.b, size, align_corners=align_corners)
        return torch.where(logits.mask.unsqueeze(1), b, a)
    logits = at_least_fp32(logits)
    return logits if size is None else resize_logits(logits, size, align_corners=align_corners)


def at_one_size(
    student: Tensor, teacher: Tensor | Mixed, size: Sequence[int] | None, *, align_corners: bool = True
) -> tuple[Tensor, Tensor]:
    """Student and detached teacher logits (B,C,*size) in fp32 or fp64."""
    with torch.no_grad():
        target = at_size(teacher, size, align_corners=align_corners)
    return at_size(student, size, align_corners=align_corners), target


def check_logits(name: str, logits: Tensor) -> None:
    """ValueError unless `logits` is floating point, (N,C) or (B,C,*spatial) with up to three spatial axes, C >= 2."""
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        found = logits.dtype if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"{name}: found {found}, expected a floating-point tensor of logits")
    if not 2 <= logits.dim() <= 5:
        raise ValueError(f"{name}: found shape {tuple(logits.shape)}, expected (N,C), (B,C,H,W) or (B,C,D,H,W)")
    if logits.shape[1] < 2:
        raise ValueError(
            f"{name}: found {logits.shape[1]} class(es) in shape {tuple(logits.shape)}, expected at least 2 on axis 1"
        )


def check_pair(student: Tensor, teacher: Tensor | Mixed, size: Sequence[int] | None) -> tuple[int, ...]:
    """The shape (B,*spatial) of the loss map that the two give; ValueError if they do not match."""
    check_logits("student_logits", student)
    shape = tuple(student.shape)
    if size is not None and len(size) != student.dim() - 2:
        raise ValueError(
            f"size: found {tuple(size)}, expected one entry for each of the {student.dim() - 2} spatial axes "
            f"of student_logits {shape}"
        )
    sides: list[tuple[str, Tensor]] = [("teacher_logits", teacher)] if not isinstance(teacher, Mixed) else []
    if isinstance(teacher, Mixed):
        sides = [("teacher_logits.a", teacher.a), ("teacher_logits.b", teacher.b)]
    for name, side in sides:
        check_logits(name, side)
        if side.device != student.device:
            raise ValueError(f"{name} is on {side.device}, student_logits on {student.device}; move one of them")
        if side.dim() != student.dim() or side.shape[:2] != student.shape[:2]:
            raise ValueError(f"{name}: found shape {tuple(side.shape)}, expected batch and classes of student {shape}")
        if size is None and side.shape != student.shape:
            raise ValueError(
                f"{name}: found shape {tuple(side.shape)}, expected {shape} as student_logits; "
                "give size= to bring both to one size"
            )
    if size is not None and min(size) < 1:
        raise ValueError(f"size: found {tuple(size)}, expected at least 1 along each axis")
    result = (shape[0], *(shape[2:] if size is None else tuple(size)))
    if isinstance(teacher, Mixed):
        check_map("teacher_logits.mask", teacher.mask, result, student.device)
        if teacher.mask.dtype != torch.bool:
            raise ValueError(f"teacher_logits.mask: found {teacher.mask.dtype}, expected torch.bool")
    return result


def check_map(name: str, values: Tensor, shape: Sequence[int], device: torch.device) -> None:
    """ValueError unless `values` is a tensor of this shape on this device."""
    if not isinstance(values, Tensor):
        raise ValueError(f"{name}: found {type(values).__name__}, expected a tensor of shape {tuple(shape)}")
    if tuple(values.shape) != tuple(shape):
        raise ValueError(f"{name}: found shape {tuple(values.shape)}, expected {tuple(shape)}")
    if values.device != device:
        raise ValueError(f"{name} is on {values.device}, the logits are on {device}; move one of them")


def check_threshold(threshold: float | Tensor, shape: Sequence[int], device: torch.device) -> None:
    """ValueError unless a number in (0, 1], or a tensor, 0-dim or of `shape`, whose values are not checked."""
    if isinstance(threshold, Tensor):
        if threshold.dim() > 0:
            check_map("threshold", threshold, shape, device)
        elif threshold.device not in (device, torch.device("cpu")):
            raise ValueError(f"threshold is on {threshold.device}, the logits are on {device}; move one of them")
    elif isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 < threshold <= 1:
        raise ValueError(f"threshold: found {threshold!r}, expected a number in (0, 1] or a tensor")
