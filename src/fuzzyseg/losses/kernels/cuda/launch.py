"""Triton implementation of the losses `fuzzy` and `hard`; the only tensor of the logits' size is their gradient.

For a mean, the forward kernel writes the gradient, which is scaled afterwards if the incoming gradient is not 1. For a
map, the backward kernel reads the student's logits and a state of 16 bytes plus C bits per pixel. Resized logits are
interpolated on the fly, and only the side of `Mixed` logits that the mask selects is read. The gradient of resized
logits is gathered by one program per group of low-resolution logits, without atomics (so it is deterministic) and
without full-resolution tensors.

TRITON_INTERPRET=1 runs the kernels on the CPU, slowly.
"""

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
import triton
from torch import Tensor

from fuzzyseg.losses.fpl.options import FPLOptions
from fuzzyseg.losses.kernels.chunk_io import flat, gradient_like
from fuzzyseg.losses.kernels.chunked import LossInputs, LossOutputs
from fuzzyseg.losses.kernels.cuda.backward import backward_kernel, lower_kernel, scale_kernel
from fuzzyseg.losses.kernels.cuda.forward import finish_kernel, forward_kernel

NARROW, WIDE, WARPS = 256, 128, 4
"""Pixels per program for up to 32 classes and for more, and warps per program; a block should fit in the L1 cache."""

ROWS = 8
"""Classes per iteration of the backward kernel."""

CELLS, COLUMNS = 32, 128
"""Low-resolution logits and full-resolution columns per program of `lower_kernel`."""

ELEMENTS = 4096
"""Elements per program of `scale_kernel`."""

Numbers = tuple[Any, ...]


def empty_outputs(inputs: LossInputs) -> LossOutputs:
    """Allocate uninitialised outputs of the shapes that `run` returns."""
    in_state = inputs.gradient and (inputs.resized or not inputs.mean)
    outputs = LossOutputs.empty(replace(inputs, gradient=False) if in_state else inputs)
    planes = (2 if inputs.resized else 4) + (2 if _continuous(inputs) else 0) + (inputs.student.shape[1] + 31) // 32
    shape = (planes, *inputs.loss_shape) if in_state else (0,)
    outputs.state = inputs.student.new_empty(shape, dtype=torch.int32)
    return outputs


def run(inputs: LossInputs) -> LossOutputs:
    """Compute the outputs that `inputs` requests; the inputs must not be fp64."""
    outputs = empty_outputs(inputs)
    images, pixels, classes, block = *_extent(inputs), inputs.student.shape[1], _block(inputs)
    valid, threshold = _valid(inputs), inputs.threshold
    blocks = triton.cdiv(pixels, block)
    bins = max(triton.next_power_of_2(classes + 1), 32)
    in_grad = outputs.grad.numel() > 0
    valid_kind = "all" if inputs.valid is None else "mask" if inputs.valid.dtype == torch.bool else "weights"
    counts_type = torch.float32 if valid_kind == "weights" else torch.int16
    unused = inputs.student
    sums = unused.new_empty((images * blocks, 5), dtype=torch.float32)
    counts = unused.new_empty((images * blocks if inputs.statistics else 0, 2, bins), dtype=counts_type)
    total = valid.sum(dtype=torch.float64) if in_grad and valid is not None else unused
    number = 0.0
    kind = "map" if threshold.dim() else "scalar"
    if kind == "scalar" and threshold.device.type == "cpu":
        kind, number, threshold = "number", float(threshold), unused
    teacher, other = inputs.teacher, inputs.other
    if other is not None and other.dtype != teacher.dtype:
        teacher, other = teacher.float(), other.float()
    raised_teacher = any(tuple(x.shape[2:]) != inputs.size for x in (teacher, other) if x is not None)
    z, z_numbers = _side(inputs.student, inputs, raised=inputs.resized)
    t, t_numbers = _side(teacher, inputs, raised=raised_teacher)
    o, o_numbers = (t, t_numbers) if other is None else _side(other, inputs, raised=raised_teacher)
    g = flat(outputs.grad) if in_grad else None
    options, hard = inputs.options or FPLOptions(), inputs.options is None
    with _device_of(unused):
        forward_kernel[(blocks, images)](
            z, t, o, unused if inputs.mask is None else inputs.mask.contiguous().view(torch.uint8),
            unused if valid is None else valid, threshold.contiguous(), total, outputs.loss,
            unused if g is None else g, outputs.state, outputs.k, outputs.weight, outputs.confidence, outputs.label,
            sums, counts, number, options.a, 1.0 / (images * pixels), pixels, inputs.size[-1] if inputs.size else 1,
            images * pixels, *z_numbers, *t_numbers, *o_numbers, *((0, 0, 0) if g is None else g.stride()),
            C=classes, BLOCK=block, BINS=bins, HARD=hard, WEIGHT=options.weight, CAP=options.cap(classes),
            RULE=_rule(inputs), FIXED=options.rule if isinstance(options.rule, int) else 0,
            OFFICIAL=options.variant == "official", ALIGNED=inputs.align_corners, RAISED_Z=inputs.resized,
            RAISED_T=raised_teacher, MIXED=other is not None, THRESHOLD=kind,
            VALID=valid_kind, LOSS=not inputs.mean, GRADIENT=in_grad, STATE=outputs.state.numel() > 0, MAPS=inputs.maps,
            COUNTS=inputs.statistics, ENTROPY=inputs.cross_entropy, num_warps=WARPS,
        )  # fmt: skip
        finish_kernel[(5 + (2 * classes - 1 if inputs.statistics else 0),)](
            sums, counts, outputs.sums, outputs.label_counts, outputs.k_counts, outputs.loss, images * blocks,
            C=classes, BINS=bins, HARD=hard, MEAN=inputs.mean, BLOCK=1024, num_warps=WARPS,
        )  # fmt: skip
    return outputs


def backward(inputs: LossInputs, state: Tensor, upstream: Tensor) -> Tensor:
    """Compute the gradient of the student's logits. upstream: the gradient of the loss, 0-dim or (B,*spatial)."""
    student, valid = inputs.student, _valid(inputs)
    images, pixels = _extent(inputs)
    grad = gradient_like(student)
    weights: Tensor | None = None
    if inputs.mean:  # only with upsampled logits
        if valid is None:
            upstream = upstream / (images * pixels)
        else:
            total = valid.sum(dtype=torch.float64)
            upstream, weights = upstream / torch.where(total > 0, total, 1.0), valid
    elif any(upstream.stride()):
        weights, upstream = upstream.contiguous(), upstream.new_ones(())
    else:  # an expanded scalar
        upstream = upstream.as_strided((), ())
    classes, continuous = student.shape[1], _continuous(inputs)
    with _device_of(student):
        if inputs.resized:
            _lower(inputs, state, upstream, weights, grad)
            return grad
        z, g, block = flat(student), flat(grad), _block(inputs)
        backward_kernel[(triton.cdiv(pixels, block), images)](
            z, state, upstream if weights is None else weights, g, pixels, images * pixels, *z.stride(), *g.stride(),
            C=classes, BLOCK=block, ROWS=min(ROWS, triton.next_power_of_2(classes)), CONTINUOUS=continuous,
            MAP=weights is not None, num_warps=WARPS,
        )  # fmt: skip
    return grad


def multiply(grad: Tensor, factor: Tensor) -> Tensor:
    """Multiply `grad`, a result of `run`, in place by a 0-dim factor; no memory traffic if it is 1."""
    with _device_of(grad):
        scale_kernel[(triton.cdiv(grad.numel(), ELEMENTS),)](
            grad, factor, grad.numel(), BLOCK=ELEMENTS, num_warps=2 * WARPS
        )
    return grad


def _lower(inputs: LossInputs, state: Tensor, scalar: Tensor, weights: Tensor | None, grad: Tensor) -> None:
    student = inputs.student
    images, classes, height, width = student.shape
    ratio_y, ratio_x = (_ratio(*pair, inputs) for pair in zip((height, width), inputs.size, strict=True))
    inverse_y, inverse_x = (1 / ratio if ratio > 0 else 0.0 for ratio in (ratio_y, ratio_x))
    widest = inputs.size[1] if inverse_x == 0 else math.ceil(2 * inverse_x) + 7
    columns = max(triton.next_power_of_2(min(widest, inputs.size[1])), COLUMNS)
    used = max(1, min(CELLS, math.floor((columns - 7) * ratio_x) - 1))
    lower_kernel[(triton.cdiv(width, used), height, images)](
        student, state, scalar, scalar if weights is None else weights, grad, images * math.prod(inputs.size),
        *inputs.size, *student.stride(), height, width, ratio_y, ratio_x, inverse_y, inverse_x, *grad.stride(),
        C=classes, COLUMNS=columns, CELLS=triton.next_power_of_2(used), USED=used, ALIGNED=inputs.align_corners,
        CONTINUOUS=_continuous(inputs), MAP=weights is not None, num_warps=WARPS,
    )  # fmt: skip


def _device_of(tensor: Tensor) -> AbstractContextManager[object]:
    """Return a context for the tensor's device, since Triton launches on the current device."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def _side(logits: Tensor, inputs: LossInputs, *, raised: bool) -> tuple[Tensor, Numbers]:
    """Return the logits and the numbers needed to read them: strides, size, and scale relative to the loss."""
    if not raised:
        view = flat(logits)
        return view, (view.stride(0), view.stride(1), 0, view.stride(2), 1, 1, 1.0, 1.0)
    height, width = logits.shape[2:]
    ratios = (_ratio(old, new, inputs) for old, new in zip((height, width), inputs.size, strict=True))
    return logits, (*logits.stride(), height, width, *ratios)


def _ratio(old: int, new: int, inputs: LossInputs) -> float:
    """Return the distance between new points in units of old ones, rounded to fp32 as in torch's interpolation."""
    if inputs.align_corners:
        exact = (old - 1) / (new - 1) if new > 1 else 0.0
    else:
        exact = old / new
    return float(torch.tensor(exact, dtype=torch.float32))


def _extent(inputs: LossInputs) -> tuple[int, int]:
    """Return the number of images and of pixels per image; logits (N,C) count as one image of N pixels."""
    images = 1 if inputs.student.dim() == 2 else inputs.student.shape[0]
    return images, inputs.loss_shape.numel() // images


def _block(inputs: LossInputs) -> int:
    pixels = NARROW if inputs.student.shape[1] <= 32 else WIDE
    fewest: int = triton.next_power_of_2(max(_extent(inputs)[1], 32 * WARPS))
    return min(pixels, fewest)


def _valid(inputs: LossInputs) -> Tensor | None:
    """Return `valid` as a contiguous tensor, with bool as bytes of 0 and 1."""
    if inputs.valid is None:
        return None
    valid = inputs.valid.contiguous()
    return valid.view(torch.uint8) if valid.dtype == torch.bool else valid


def _rule(inputs: LossInputs) -> str:
    rule = "n-1" if inputs.options is None else inputs.options.rule
    if isinstance(rule, int):
        return "fixed"
    return "n-1" if rule == "continuous" and not _continuous(inputs) else rule


def _continuous(inputs: LossInputs) -> bool:
    return inputs.options is not None and inputs.options.continuous(inputs.student.shape[1])
