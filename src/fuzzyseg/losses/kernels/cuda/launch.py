"""`fuzzy` and `hard` on CUDA by kernels in Triton: nothing of the size of the logits but the inputs and the gradient.

Mean: the forward kernel writes the gradient; only if another factor than 1 arrives it is gone over again. Map: what the
backward kernel needs beside the student's logits is kept, 16 bytes and C bits for each pixel. Raised logits are
interpolated where they are read, `Mixed` ones where the mask says, and their gradient is gathered by a kernel that
stands at each low-resolution logit, without atomics: deterministic, and no full-resolution logits or gradient.

TRITON_INTERPRET=1 runs the kernels on the CPU, slowly.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import triton
from torch import Tensor

from fuzzyseg.losses.kernels.chunk_io import flat, gradient_like
from fuzzyseg.losses.kernels.cuda.backward import backward_kernel, lower_kernel, scale_kernel
from fuzzyseg.losses.kernels.cuda.forward import finish_kernel, forward_kernel
from fuzzyseg.losses.kernels.types import Answer, Request

NARROW, WIDE, WARPS = 256, 128, 4
"""Pixels of a program up to 32 classes and above, and its warps: a block's rows should stay in the nearest cache."""

ROWS = 8
"""Classes that a program of the backward pass takes at a time."""

CELLS, COLUMNS = 32, 128
"""Low-resolution logits and full-resolution columns of a program that takes the gradient back."""

ELEMENTS = 4096
"""Of a program that multiplies the gradient."""

Numbers = tuple[Any, ...]


def room(request: Request) -> Answer:
    """Empty tensors of the shapes that `run` gives."""
    like, shape, classes = request.student, request.loss_shape, request.student.shape[1]
    counted = classes if request.statistics else 0
    asked = shape if request.maps else torch.Size((0,))
    in_state = request.gradient and (request.raised or not request.mean)
    planes = (2 if request.raised else 4) + (2 if _continuous(request) else 0) + (classes + 31) // 32
    return Answer(
        loss=like.new_empty(() if request.mean else shape, dtype=torch.float32),
        grad=gradient_like(like) if request.gradient and not in_state else like.new_empty(0),
        state=like.new_empty((planes, *shape) if in_state else 0, dtype=torch.int32),
        sums=like.new_empty(5, dtype=torch.float64),
        k_counts=like.new_empty(max(counted - 1, 0), dtype=torch.float64),
        label_counts=like.new_empty(counted, dtype=torch.float64),
        k=like.new_empty(asked, dtype=torch.int64),
        weight=like.new_empty(asked, dtype=torch.float32),
        confidence=like.new_empty(asked, dtype=torch.float32),
        label=like.new_empty(asked, dtype=torch.int64),
    )


def run(request: Request) -> Answer:
    """What `request` asks for; no tensor is fp64."""
    answer = room(request)
    images, pixels, classes, block = *_extent(request), request.student.shape[1], _block(request)
    valid, threshold = _valid(request), request.threshold
    blocks = triton.cdiv(pixels, block)
    bins = max(triton.next_power_of_2(classes + 1), 32)
    in_grad = answer.grad.numel() > 0
    which = "all" if request.valid is None else "mask" if request.valid.dtype == torch.bool else "weights"
    counts_type = torch.float32 if which == "weights" else torch.int16
    unused = request.student
    sums = unused.new_empty((images * blocks, 5), dtype=torch.float32)
    counts = unused.new_empty((images * blocks if request.statistics else 0, 2, bins), dtype=counts_type)
    total = valid.sum(dtype=torch.float64) if in_grad and valid is not None else unused
    number = 0.0
    kind = "map" if threshold.dim() else "scalar"
    if kind == "scalar" and threshold.device.type == "cpu":
        kind, number, threshold = "number", float(threshold), unused
    teacher, other = request.teacher, request.other
    if other is not None and other.dtype != teacher.dtype:
        teacher, other = teacher.float(), other.float()
    raised_teacher = any(tuple(x.shape[2:]) != request.size for x in (teacher, other) if x is not None)
    z, z_numbers = _side(request.student, request, raised=request.raised)
    t, t_numbers = _side(teacher, request, raised=raised_teacher)
    o, o_numbers = (t, t_numbers) if other is None else _side(other, request, raised=raised_teacher)
    g = flat(answer.grad) if in_grad else None
    options = request.options
    with _device_of(unused):
        forward_kernel[(blocks, images)](
            z, t, o, unused if request.mask is None else request.mask.contiguous().view(torch.uint8),
            unused if valid is None else valid, threshold.contiguous(), total, answer.loss,
            unused if g is None else g, answer.state, answer.k, answer.weight, answer.confidence, answer.label,
            sums, counts, number, options.a, 1.0 / (images * pixels), pixels, request.size[-1] if request.size else 1,
            images * pixels, *z_numbers, *t_numbers, *o_numbers, *((0, 0, 0) if g is None else g.stride()),
            C=classes, BLOCK=block, BINS=bins, HARD=options.kind == "hard", WEIGHT=options.weight, CAP=options.cap,
            RULE=_rule(request), FIXED=options.rule if isinstance(options.rule, int) else 0,
            OFFICIAL=options.variant == "official", ALIGNED=request.align_corners, RAISED_Z=request.raised,
            RAISED_T=raised_teacher, MIXED=other is not None, THRESHOLD=kind,
            VALID=which, LOSS=not request.mean, GRADIENT=in_grad, STATE=answer.state.numel() > 0, MAPS=request.maps,
            COUNTS=request.statistics, ENTROPY=request.cross_entropy, num_warps=WARPS,
        )  # fmt: skip
        finish_kernel[(5 + (2 * classes - 1 if request.statistics else 0),)](
            sums, counts, answer.sums, answer.label_counts, answer.k_counts, answer.loss, images * blocks,
            C=classes, BINS=bins, HARD=options.kind == "hard", MEAN=request.mean, BLOCK=1024, num_warps=WARPS,
        )  # fmt: skip
    return answer


def backward(request: Request, state: Tensor, upstream: Tensor) -> Tensor:
    """The gradient of the student's logits, for the gradient that arrives at the loss: 0-dim, or (B,*spatial)."""
    student, valid = request.student, _valid(request)
    images, pixels = _extent(request)
    grad = gradient_like(student)
    weights: Tensor | None = None
    if request.mean:  # raised
        if valid is None:
            upstream = upstream / (images * pixels)
        else:
            total = valid.sum(dtype=torch.float64)
            upstream, weights = upstream / torch.where(total > 0, total, 1.0), valid
    elif any(upstream.stride()):
        weights, upstream = upstream.contiguous(), upstream.new_ones(())
    else:  # one number, expanded
        upstream = upstream.as_strided((), ())
    classes, continuous = student.shape[1], _continuous(request)
    with _device_of(student):
        if request.raised:
            _lower(request, state, upstream, weights, grad)
            return grad
        z, g, block = flat(student), flat(grad), _block(request)
        backward_kernel[(triton.cdiv(pixels, block), images)](
            z, state, upstream if weights is None else weights, g, pixels, images * pixels, *z.stride(), *g.stride(),
            C=classes, BLOCK=block, ROWS=min(ROWS, triton.next_power_of_2(classes)), CONTINUOUS=continuous,
            MAP=weights is not None, num_warps=WARPS,
        )  # fmt: skip
    return grad


def multiply(grad: Tensor, factor: Tensor) -> Tensor:
    """`grad`, as `run` gave it, times a 0-dim factor, in place; read and written only where the factor is not 1."""
    with _device_of(grad):
        scale_kernel[(triton.cdiv(grad.numel(), ELEMENTS),)](
            grad, factor, grad.numel(), BLOCK=ELEMENTS, num_warps=2 * WARPS
        )
    return grad


def _lower(request: Request, state: Tensor, scalar: Tensor, weights: Tensor | None, grad: Tensor) -> None:
    student = request.student
    images, classes, height, width = student.shape
    ratio_y, ratio_x = (_ratio(*pair, request) for pair in zip((height, width), request.size, strict=True))
    inverse_y, inverse_x = (1 / ratio if ratio > 0 else 0.0 for ratio in (ratio_y, ratio_x))
    most = request.size[1] if inverse_x == 0 else math.ceil(2 * inverse_x) + 7
    columns = max(triton.next_power_of_2(min(most, request.size[1])), COLUMNS)
    used = max(1, min(CELLS, math.floor((columns - 7) * ratio_x) - 1))
    lower_kernel[(triton.cdiv(width, used), height, images)](
        student, state, scalar, scalar if weights is None else weights, grad, images * math.prod(request.size),
        *request.size, *student.stride(), height, width, ratio_y, ratio_x, inverse_y, inverse_x, *grad.stride(),
        C=classes, COLUMNS=columns, CELLS=triton.next_power_of_2(used), USED=used, ALIGNED=request.align_corners,
        CONTINUOUS=_continuous(request), MAP=weights is not None, num_warps=WARPS,
    )  # fmt: skip


def _device_of(tensor: Tensor) -> AbstractContextManager[object]:
    """Triton launches on the current device."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def _side(logits: Tensor, request: Request, *, raised: bool) -> tuple[Tensor, Numbers]:
    """Logits and what a kernel must know to read them: strides, size, and the ratios of their size to the loss's."""
    if not raised:
        view = flat(logits)
        return view, (view.stride(0), view.stride(1), 0, view.stride(2), 1, 1, 1.0, 1.0)
    height, width = logits.shape[2:]
    ratios = (_ratio(old, new, request) for old, new in zip((height, width), request.size, strict=True))
    return logits, (*logits.stride(), height, width, *ratios)


def _ratio(old: int, new: int, request: Request) -> float:
    """How far apart new points lie between old ones, rounded to fp32 as in torch's interpolation."""
    if request.align_corners:
        exact = (old - 1) / (new - 1) if new > 1 else 0.0
    else:
        exact = old / new
    return float(torch.tensor(exact, dtype=torch.float32))


def _extent(request: Request) -> tuple[int, int]:
    """Images and pixels of each; logits (N,C) are one image of N pixels."""
    images = 1 if request.student.dim() == 2 else request.student.shape[0]
    return images, request.loss_shape.numel() // images


def _block(request: Request) -> int:
    pixels = NARROW if request.student.shape[1] <= 32 else WIDE
    fewest: int = triton.next_power_of_2(max(_extent(request)[1], 32 * WARPS))
    return min(pixels, fewest)


def _valid(request: Request) -> Tensor | None:
    """Contiguous; bool as bytes of 0 and 1."""
    if request.valid is None:
        return None
    valid = request.valid.contiguous()
    return valid.view(torch.uint8) if valid.dtype == torch.bool else valid


def _rule(request: Request) -> str:
    rule = request.options.rule
    if isinstance(rule, int):
        return "fixed"
    return "n-1" if rule == "continuous" and not _continuous(request) else rule


def _continuous(request: Request) -> bool:
    return request.options.kind == "fuzzy" and request.options.continuous
