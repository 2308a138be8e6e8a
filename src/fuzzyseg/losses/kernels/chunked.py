"""Chunked losses in plain torch: the only tensor of the logits' size is their gradient.

A chunk (C,P) stays in the cache during the whole computation, which is implemented in `cpu` for the CPU and in
`no_sync`, without host synchronisation, for other devices.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from fuzzyseg.losses.base import divisor
from fuzzyseg.losses.fpl.options import FPLOptions
from fuzzyseg.losses.kernels import chunk_io, cpu, no_sync
from fuzzyseg.losses.kernels.chunk_io import Sink, Source

MIN_CHUNK, MAX_CHUNK, SHARE = 1 << 16, 1 << 19, 100
"""Minimum and maximum elements per chunk, and the number of chunks for fp32 logits (bf16: 133). The fp32 buffers of a
chunk take a tenth of the logits' memory, or 16 MB. Smaller chunks need more calls and are slower."""

ACCELERATOR = 1 << 24
"""Elements per chunk on other devices, where calls are more expensive."""


@dataclass(frozen=True)
class LossInputs:
    """Validated inputs of a kernel; a kernel records no graph.

    student, teacher: logits (B,C,*spatial). other: logits of a second image, which replace the teacher's where `mask`
    (B,*size) is True. size: spatial size of the loss; logits of a different size (four axes only) are interpolated
    bilinearly, using `align_corners`, before they are mixed. valid (B,*size): bool or non-negative weights, or None.
    threshold: 0-dim or (B,*size). options: None for cross entropy on the teacher's top class. mean: compute the mean
    over valid pixels instead of the map, which is not multiplied by valid. The last four request further outputs.
    """

    student: Tensor
    teacher: Tensor
    other: Tensor | None
    mask: Tensor | None
    valid: Tensor | None
    threshold: Tensor
    size: tuple[int, ...]
    align_corners: bool
    options: FPLOptions | None
    mean: bool
    gradient: bool
    statistics: bool
    maps: bool
    cross_entropy: bool

    @property
    def loss_shape(self) -> torch.Size:
        """Shape (B,*spatial) of the loss."""
        return torch.Size((self.student.shape[0], *self.size))

    @property
    def precision(self) -> torch.dtype:
        """Compute precision: fp64 for fp64 logits, otherwise fp32."""
        return torch.float64 if self.student.dtype == torch.float64 else torch.float32

    @property
    def resized(self) -> bool:
        """Whether the size of the student's logits differs from that of the loss."""
        return tuple(self.student.shape[2:]) != tuple(self.size)


@dataclass
class LossOutputs:
    """Outputs of a kernel; tensors that were not requested are empty.

    loss: 0-dim, or (B,*spatial). grad: gradient of the mean, or of each pixel's loss with respect to that pixel's
    logits, which the incoming gradient multiplies; shaped like the student's logits. For resized logits, it is summed
    over pixels times valid. Empty if `state` contains the input of a backward kernel. sums (5,) fp64, over pixels times
    valid: valid, loss, weight, confidence, cross entropy on the label. k_counts (C-1,) and label_counts (C,) fp64. k,
    label int64, weight, confidence: maps (B,*spatial).
    """

    loss: Tensor
    grad: Tensor
    state: Tensor
    sums: Tensor
    k_counts: Tensor
    label_counts: Tensor
    k: Tensor
    weight: Tensor
    confidence: Tensor
    label: Tensor

    @classmethod
    def empty(cls, inputs: LossInputs) -> Self:
        """Allocate outputs of the requested shapes; sums and counts are 0, the others are uninitialised."""
        like, shape = inputs.student, inputs.loss_shape
        classes = like.shape[1] if inputs.statistics else 0
        requested = shape if inputs.maps else torch.Size((0,))
        return cls(
            loss=like.new_empty(() if inputs.mean else shape, dtype=inputs.precision),
            grad=chunk_io.gradient_like(like) if inputs.gradient else like.new_empty(0),
            state=like.new_empty(0),
            sums=like.new_zeros(5, dtype=torch.float64),
            k_counts=like.new_zeros(max(classes - 1, 0), dtype=torch.float64),
            label_counts=like.new_zeros(classes, dtype=torch.float64),
            k=like.new_empty(requested, dtype=torch.int64),
            weight=like.new_empty(requested, dtype=inputs.precision),
            confidence=like.new_empty(requested, dtype=inputs.precision),
            label=like.new_empty(requested, dtype=torch.int64),
        )

    def statistics(self) -> dict[str, Tensor]:
        """Return k_histogram (C-1,), label_histogram (C,), mean_weight and mean_confidence of the valid pixels."""
        total = divisor(self.sums[0])
        return {
            "k_histogram": (self.k_counts / total).float(),
            "label_histogram": (self.label_counts / total).float(),
            "mean_weight": (self.sums[2] / total).to(self.loss.dtype),
            "mean_confidence": (self.sums[3] / total).to(self.loss.dtype),
        }

    def balance(self) -> Tensor:
        """Return the factor that scales the mean to that of cross entropy on the label; 1 if the mean is (nearly) 0."""
        total = divisor(self.sums[0])
        fuzzy, hard = self.sums[1] / total, self.sums[4] / total
        return torch.where(fuzzy > 1e-30, hard / fuzzy, 1.0).to(self.loss.dtype)

    def tensors(self) -> tuple[Tensor, ...]:
        """Return all tensors in the order of the fields."""
        return tuple(vars(self).values())


def run(inputs: LossInputs, upstream: Tensor | None = None) -> LossOutputs:
    """Compute the outputs. upstream (B,*spatial): factor of each pixel's gradient, in place of `_scale`."""
    outputs = LossOutputs.empty(inputs)
    images = 1 if inputs.student.dim() == 2 else inputs.student.shape[0]
    pixels = inputs.loss_shape.numel() // max(images, 1)
    student, teacher, sink, length = _readers(inputs, outputs.grad)
    kernel = _kernel(inputs)
    valid = None if inputs.valid is None else inputs.valid.reshape(images, -1)
    threshold = inputs.threshold.to(inputs.precision)
    threshold = threshold.reshape(images, -1) if threshold.dim() else threshold
    if upstream is None:
        scale = _scale(inputs, valid, images * pixels)
    else:
        scale = upstream.reshape(images, -1).to(inputs.precision)
    maps = {
        name: value.view(images, -1)
        for name in ("loss", "k", "weight", "confidence", "label")
        if (value := getattr(outputs, name)).numel() and value.dim()
    }
    # Images and pixels are in order, since a sink of resized logits sums rows until its image is complete.
    for image in range(images):
        for start in range(0, pixels, length):
            stop = min(start + length, pixels)
            here = (image, slice(start, stop))
            out = None if sink is None else sink.open(image, start, stop)
            result = kernel(
                student.read(image, start, stop),
                teacher.read(image, start, stop),
                threshold[here] if threshold.dim() else threshold,
                scale[here] if scale is not None and scale.dim() else scale,
                out,
            )
            if sink is not None and out is not None:
                sink.close(image, start, stop, out)
            for name, place in maps.items():
                place[here] = 1 if name == "k" and result.k is None else getattr(result, name)
            _accumulate(inputs, outputs, result, stop - start, None if valid is None else valid[here].double())
    if inputs.mean:
        outputs.loss.copy_(outputs.sums[1] / divisor(outputs.sums[0]))
    return outputs


def _readers(inputs: LossInputs, grad: Tensor) -> tuple[Source, Source, Sink | None, int]:
    """Return the student and teacher sources, the gradient sink and the number of pixels per chunk."""
    precision, size, classes = inputs.precision, inputs.size, inputs.student.shape[1]
    sides = [inputs.student, inputs.teacher, *([] if inputs.other is None else [inputs.other])]
    options = {"align_corners": inputs.align_corners, "dtype": precision, "device": inputs.student.device}
    others = {tuple(side.shape[2:]) for side in sides} - {tuple(size)}
    grids = {shape: chunk_io.Grid(shape, size, **options) for shape in others}

    def source(logits: Tensor) -> Source:
        grid = grids.get(tuple(logits.shape[2:]))
        return chunk_io.DirectSource(logits, precision) if grid is None else chunk_io.ResizedSource(logits, grid)

    teacher, sink = source(inputs.teacher), None
    if inputs.other is not None and inputs.mask is not None:
        teacher = chunk_io.MixedSource(teacher, source(inputs.other), inputs.mask)
    if inputs.gradient:
        grid = grids.get(tuple(inputs.student.shape[2:]))
        sink = chunk_io.DirectSink(grad, precision) if grid is None else chunk_io.ResizedSink(grad, grid)
    # A band of upsampled rows also needs memory for the rows that are interpolated only along x.
    share = classes * inputs.loss_shape.numel() * (4 + inputs.student.element_size()) // (8 * SHARE)
    elements = min(max(share * 2 // 3, 2 * MIN_CHUNK) if grids else max(share, MIN_CHUNK), MAX_CHUNK)
    if inputs.student.device.type != "cpu":
        elements = ACCELERATOR
    row = size[1] if grids else 1
    return source(inputs.student), teacher, sink, max(elements // (classes * row), 1) * row


def _kernel(inputs: LossInputs) -> Callable[..., cpu.Pixels]:
    """Return the function (z, t, threshold, scale, out) -> maps for this device."""
    module = cpu if inputs.student.device.type == "cpu" else no_sync
    options, entropy = inputs.options, inputs.cross_entropy
    if options is None:
        return lambda z, t, threshold, scale, out: module.hard_pixels(z, t, scale, out)
    return lambda z, t, threshold, scale, out: module.fuzzy_pixels(
        z, t, threshold, options, scale, out, cross_entropy=entropy
    )


def _scale(inputs: LossInputs, valid: Tensor | None, pixels: int) -> Tensor | None:
    """Return the factor of each pixel's gradient: its weight in the mean, `valid` for a resized map, otherwise None.

    A map from resized logits is assumed to be averaged over `valid` (`custom_op`).
    """
    if not inputs.mean:
        return valid.to(inputs.precision) if inputs.resized and valid is not None else None
    if valid is None:
        total = inputs.student.new_full((), float(pixels), dtype=torch.float64)
        return divisor(total).reciprocal().to(inputs.precision)
    part = divisor(valid.sum(dtype=torch.float64)).reciprocal()
    return (valid.double() * part).to(inputs.precision)


def _accumulate(inputs: LossInputs, outputs: LossOutputs, maps: cpu.Pixels, pixels: int, valid: Tensor | None) -> None:
    """Add a chunk's sums and counts in fp64, since a sequential sum in fp32 would lose precision."""

    def total(values: Tensor) -> Tensor:
        return values.sum(dtype=torch.float64) if valid is None else (values * valid).sum()

    def counts(index: Tensor, bins: int) -> Tensor:
        weight = torch.ones_like(index, dtype=torch.float64) if valid is None else valid
        return weight.new_zeros(bins).scatter_add_(0, index, weight)

    count = pixels if valid is None else valid.sum()
    outputs.sums[0] += count
    outputs.sums[1] += total(maps.loss)
    if inputs.cross_entropy and maps.cross_entropy is not None:
        outputs.sums[4] += total(maps.cross_entropy)
    if not inputs.statistics:
        return
    outputs.sums[2] += total(maps.weight)
    outputs.sums[3] += total(maps.confidence)
    outputs.label_counts += counts(maps.label, len(outputs.label_counts))
    if maps.k is None:
        outputs.k_counts[0] += count
    else:
        outputs.k_counts += counts(maps.k.long() - 1, len(outputs.k_counts))


def multiply(grad: Tensor, upstream: Tensor) -> Tensor:
    """Multiply `grad` (B,C,*spatial) in place by `upstream`, 0-dim or (B,*spatial).

    Works in chunks on the CPU if the precisions differ, to avoid an fp32 copy of the whole tensor.
    """
    if upstream.dim() == 0 or grad.dtype == upstream.dtype or grad.device.type != "cpu":
        return grad.mul_(upstream.unsqueeze(1) if upstream.dim() else upstream)
    flat_grad = chunk_io.flat(grad)
    factor, length = upstream.reshape(len(flat_grad), 1, -1), max(MIN_CHUNK // (len(flat_grad) * grad.shape[1]), 1)
    for part, by in zip(torch.split(flat_grad, length, 2), torch.split(factor, length, 2), strict=True):
        part.mul_(by)
    return grad
