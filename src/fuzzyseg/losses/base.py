"""Argument checks, dtype conversion and resizing of logits, and means and histograms over valid pixels.

The checks do not read tensor values, so they never synchronise with a GPU.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from fuzzyseg.ops import distributed
from fuzzyseg.ops.mix import Mixed
from fuzzyseg.ops.resize import full_precision as full_precision
from fuzzyseg.ops.resize import resize_logits


def at_least_fp32(values: Tensor) -> Tensor:
    """Convert fp16 and bf16 to fp32; leave fp32 and fp64 unchanged."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def at_size(logits: Tensor | Mixed, size: Sequence[int] | None, *, align_corners: bool = True) -> Tensor:
    """Convert logits to fp32 (fp64 stays fp64) and resize them to (B,C,*size), unless size is None.

    `Mixed` logits are resized before they are mixed.
    """
    if isinstance(logits, Mixed):
        a = at_size(logits.a, size, align_corners=align_corners)
        b = at_size(logits.b, size, align_corners=align_corners)
        return torch.where(logits.mask.unsqueeze(1), b, a)
    logits = at_least_fp32(logits)
    return logits if size is None else resize_logits(logits, size, align_corners=align_corners)


def at_one_size(
    student: Tensor, teacher: Tensor | Mixed, size: Sequence[int] | None, *, align_corners: bool = True
) -> tuple[Tensor, Tensor]:
    """Return the student's and the detached teacher's logits, (B,C,*size) each, in fp32 or fp64."""
    with torch.no_grad():
        target = at_size(teacher, size, align_corners=align_corners)
    return at_size(student, size, align_corners=align_corners), target


def labels(teacher: Tensor | Mixed, size: Sequence[int]) -> Tensor:
    """Return each pixel's most probable class, (B,H,W) int64, from logits (B,C,h,w) resized to `size` = (H,W).

    Processes one image at a time, so the full-size logits of the whole batch are never in memory.
    """
    if isinstance(teacher, Mixed):
        return torch.where(teacher.mask, labels(teacher.b, size), labels(teacher.a, size))
    with torch.no_grad():
        return torch.cat([at_size(image, size).argmax(1) for image in torch.split(teacher, 1)])


def check_logits(name: str, logits: Tensor) -> None:
    """Raise ValueError unless `logits` is floating point, (N,C) or (B,C,*spatial) with 1 to 3 spatial axes, C >= 2."""
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        kind = logits.dtype if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"{name}: found {kind}, expected a floating-point tensor of logits")
    if not 2 <= logits.dim() <= 5:
        raise ValueError(f"{name}: found shape {tuple(logits.shape)}, expected (N,C), (B,C,H,W) or (B,C,D,H,W)")
    if logits.shape[1] < 2:
        raise ValueError(f"{name}: found shape {tuple(logits.shape)}, expected at least 2 classes on axis 1")


def check_pair(student: Tensor, teacher: Tensor | Mixed, size: Sequence[int] | None) -> tuple[int, ...]:
    """Return the shape (B,*spatial) of the loss map. Raises ValueError if student and teacher do not match."""
    check_logits("student_logits", student)
    shape = tuple(student.shape)
    if size is not None and len(size) != student.dim() - 2:
        raise ValueError(f"size: found {tuple(size)}, expected one entry per spatial axis of student_logits {shape}")
    sides = {} if isinstance(teacher, Mixed) else {"teacher_logits": teacher}
    if isinstance(teacher, Mixed):
        sides = {"teacher_logits.a": teacher.a, "teacher_logits.b": teacher.b}
    for name, side in sides.items():
        check_logits(name, side)
        if side.device != student.device:
            raise ValueError(f"{name} is on {side.device}, student_logits on {student.device}; move one of them")
        if side.dim() != student.dim() or side.shape[:2] != student.shape[:2]:
            raise ValueError(f"{name}: found shape {tuple(side.shape)}, expected batch and classes of student {shape}")
        if size is None and side.shape != student.shape:
            advice = "or give size= to bring both to one size"
            raise ValueError(f"{name}: found shape {tuple(side.shape)}, expected {shape} like student_logits, {advice}")
    if size is not None and min(size) < 1:
        raise ValueError(f"size: found {tuple(size)}, expected at least 1 along each axis")
    result = (shape[0], *(shape[2:] if size is None else tuple(size)))
    if isinstance(teacher, Mixed):
        check_map("teacher_logits.mask", teacher.mask, result, student.device)
        if teacher.mask.dtype != torch.bool:
            raise ValueError(f"teacher_logits.mask: found {teacher.mask.dtype}, expected torch.bool")
    return result


def check_map(name: str, values: Tensor, shape: Sequence[int], device: torch.device) -> None:
    """Raise ValueError unless `values` is a tensor of this shape on this device."""
    if not isinstance(values, Tensor):
        raise ValueError(f"{name}: found {type(values).__name__}, expected a tensor of shape {tuple(shape)}")
    if tuple(values.shape) != tuple(shape):
        raise ValueError(f"{name}: found shape {tuple(values.shape)}, expected {tuple(shape)}")
    if values.device != device:
        raise ValueError(f"{name} is on {values.device}, the logits are on {device}; move one of them")


def check_threshold(threshold: float | Tensor, shape: Sequence[int], device: torch.device) -> None:
    """Raise ValueError unless `threshold` is in (0, 1], or a tensor (0-dim or of `shape`, values not checked)."""
    if isinstance(threshold, Tensor):
        if threshold.dim() > 0:
            check_map("threshold", threshold, shape, device)
        elif threshold.device not in (device, torch.device("cpu")):
            raise ValueError(f"threshold is on {threshold.device}, the logits are on {device}; move one of them")
    elif isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 < threshold <= 1:
        raise ValueError(f"threshold: found {threshold!r}, expected a number in (0, 1] or a tensor")


def masked_mean(values: Tensor, valid: Tensor) -> Tensor:
    """Average `values` over valid pixels. Training uses this function for all means over pixels.

    values, valid (B,*spatial); valid is bool or non-negative weights. The weighted sum is divided by the sum of the
    weights *averaged over the processes*, so that DDP's averaged gradient is the gradient of the mean over the global
    batch. If no pixel is valid, the result is 0 but still differentiable. Values with weight 0 are ignored, even NaN.
    Half-precision weights are summed in the precision of the values.
    """
    if valid.dtype == torch.bool:  # avoids allocating two weight maps
        count = valid.sum().to(values.dtype)
        return torch.where(valid, values, 0).sum() / divisor(distributed.mean(count))
    weight = valid.detach().to(values.dtype)
    total = (torch.where(weight > 0, values, 0) * weight).sum()
    return total / divisor(distributed.mean(weight.sum()))


def local_mean(values: Tensor, valid: Tensor | None) -> Tensor:
    """Average `values` over this process's valid pixels, or all pixels if valid is None; 0 if there are none.

    Unlike in `masked_mean`, a NaN at an invalid pixel makes the mean NaN. Otherwise, the NaN would reach the gradient
    through the product with 0 without showing up in the loss.
    """
    if valid is None:
        return values.sum() / max(values.numel(), 1)
    weight = valid.detach().to(values.dtype)
    return (values * weight).sum() / divisor(weight.sum())


def histogram(index: Tensor, valid: Tensor | None, bins: int) -> Tensor:
    """Return the fraction of valid pixels in each bin: (bins,) fp32, without gradient. index (B,*spatial) int64."""
    index = index.reshape(len(index), index.numel() // max(len(index), 1))  # -1 is ambiguous for an empty batch
    weight = torch.ones_like(index, dtype=torch.float32) if valid is None else valid.reshape(index.shape).float()
    # One row per image causes fewer collisions on a GPU than one shared row, and its counts are exact in fp32.
    # bincount would synchronise with the GPU.
    counts = weight.new_zeros((index.shape[0], bins)).scatter_add_(1, index, weight).sum(0)
    return counts / divisor(counts.sum())


def divisor(total: Tensor) -> Tensor:
    """Return `total` with zeros replaced by 1."""
    return torch.where(total > 0, total, torch.ones_like(total))
