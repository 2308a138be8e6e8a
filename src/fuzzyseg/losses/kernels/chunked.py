"""The losses in chunks of pixels, in plain torch: nothing of the size of the logits but the gradient.

A chunk (C,P) goes through the whole computation while it lies in the cache: a core gives the maps of its pixels and
writes their gradient to its final place. On the CPU the core is `core`, elsewhere `unlooked`, which looks at no value.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fuzzyseg.losses.kernels import compiled, cpu, unlooked
from fuzzyseg.losses.kernels.chunk_io import Direct, DirectSink, Mixture, Sink, Source
from fuzzyseg.losses.kernels.types import Answer, Request
from fuzzyseg.losses.kernels.upsample import Grid, Raised, RaisedSink

LEAST, LARGEST, SHARE = 1 << 16, 1 << 19, 100
"""A chunk has 1/100 of the elements of fp32 logits, 1/133 of bf16 ones, within these bounds: its buffers, all in fp32,
are a tenth of the logits, or 16 MB; smaller chunks cost time, for each needs as many calls."""

ELSEWHERE = 1 << 24
"""Elements of a chunk on other devices, where calls cost more."""

Core = Callable[[Tensor, Tensor, Tensor, Tensor | None, Tensor | None], cpu.Pixels]
"""(z, t, threshold, scale, out) -> maps."""


def run(request: Request, form: str, upstream: Tensor | None = None) -> Answer:
    """What `request` asks for. upstream (B,*spatial): the gradient is multiplied by it, pixel by pixel, instead."""
    answer = Answer.empty(request)
    tally = Tally(request, answer)
    ends = _Ends(request, answer)
    pixels = _core(request, form)
    threshold = request.threshold.to(request.precision)
    threshold = threshold.reshape(tally.images, -1) if threshold.dim() else threshold
    scale = tally.scale() if upstream is None else upstream.reshape(tally.images, -1).to(request.precision)
    for image in range(tally.images):
        for start in range(0, tally.pixels, ends.length):
            stop = min(start + ends.length, tally.pixels)
            here = (image, slice(start, stop))
            z, t = ends.student.read(image, start, stop), ends.teacher.read(image, start, stop)
            out = None if ends.sink is None else ends.sink.open(image, start, stop)
            found = pixels(
                z,
                t,
                threshold[here] if threshold.dim() else threshold,
                scale[here] if scale is not None and scale.dim() else scale,
                out,
            )
            if ends.sink is not None and out is not None:
                ends.sink.close(image, start, stop, out)
            tally.add(image, start, stop, found)
    tally.finish()
    return answer


class _Ends:
    """Where the logits are read and the gradient goes, and how many pixels at a time."""

    def __init__(self, request: Request, answer: Answer) -> None:
        sides = [request.student, request.teacher, *([] if request.other is None else [request.other])]
        self.grids = {
            tuple(side.shape[2:]): Grid(
                (side.shape[2], side.shape[3]),
                (request.size[0], request.size[1]),
                align_corners=request.align_corners,
                dtype=request.precision,
                device=side.device,
            )
            for side in sides
            if tuple(side.shape[2:]) != request.size
        }
        self.precision = request.precision
        self.student = self._source(request.student)
        self.teacher = self._source(request.teacher)
        if request.other is not None and request.mask is not None:
            self.teacher = Mixture(self.teacher, self._source(request.other), request.mask)
        self.sink = self._sink(request, answer) if request.gradient else None
        classes, elements = request.student.shape[1], request.student.shape[1] * request.loss_shape.numel()
        on_cpu = request.student.device.type == "cpu"
        share = elements * (4 + request.student.element_size()) // (8 * SHARE)
        if self.grids:  # a band of whole rows, of which few more than its height are stretched
            rows = (min(max(share * 2 // 3, 2 * LEAST), LARGEST) if on_cpu else ELSEWHERE) // (
                classes * request.size[1]
            )
            self.length = max(rows, 1) * request.size[1]
        else:
            self.length = max((min(max(share, LEAST), LARGEST) if on_cpu else ELSEWHERE) // classes, 1)

    def _source(self, logits: Tensor) -> Source:
        grid = self.grids.get(tuple(logits.shape[2:]))
        return Direct(logits, self.precision) if grid is None else Raised(logits, grid)

    def _sink(self, request: Request, answer: Answer) -> Sink:
        grid = self.grids.get(tuple(request.student.shape[2:]))
        return DirectSink(answer.grad, self.precision) if grid is None else RaisedSink(answer.grad, grid)


def _core(request: Request, form: str) -> Core:
    """The core of this form and device with its options set."""
    module = cpu if request.student.device.type == "cpu" else unlooked
    if request.options.kind == "hard":
        return lambda z, t, threshold, scale, out: module.hard_pixels(z, t, scale, out)
    function = compiled.fuzzy_pixels if form == "compiled" else module.fuzzy_pixels
    options, entropy = request.options, request.cross_entropy
    return lambda z, t, threshold, scale, out: function(z, t, threshold, options, scale, out, cross_entropy=entropy)


class Tally:
    """Chunks added up: maps, sums and counts of an answer."""

    def __init__(self, request: Request, answer: Answer) -> None:
        self.request, self.answer = request, answer
        self.images = 1 if request.student.dim() == 2 else request.student.shape[0]
        self.pixels = request.loss_shape.numel() // max(self.images, 1)
        self.valid = None if request.valid is None else request.valid.reshape(self.images, -1)
        self.maps = {
            name: None if value.numel() == 0 or value.dim() == 0 else value.view(self.images, -1)
            for name, value in (
                ("loss", answer.loss),
                ("k", answer.k),
                ("weight", answer.weight),
                ("confidence", answer.confidence),
                ("label", answer.label),
            )
        }

    def total(self) -> Tensor:
        """The sum of `valid`, fp64."""
        if self.valid is None:
            return self.answer.sums.new_tensor(float(self.images * self.pixels))
        return self.valid.sum(dtype=torch.float64)

    def scale(self) -> Tensor | None:
        """What the gradient of a pixel is multiplied by: its part in the mean; for a map that is taken back to a
        stride, its `valid`, in the hope that a mean over it follows (`operator`); else nothing.
        """
        precision = self.request.precision
        if self.request.mean:
            total = self.total()
            part = torch.where(total > 0, total, 1.0).reciprocal()
            return (part if self.valid is None else self.valid.double() * part).to(precision)
        raised = tuple(self.request.student.shape[2:]) != self.request.size
        return self.valid.to(precision) if raised and self.valid is not None else None

    def add(self, image: int, start: int, stop: int, found: cpu.Pixels) -> None:
        """Take in pixels start to stop of an image."""
        ones = found.k is None
        for name, place in self.maps.items():
            if place is not None:
                place[image, start:stop] = 1 if name == "k" and ones else getattr(found, name)
        answer, request = self.answer, self.request
        valid = None if self.valid is None else self.valid[image, start:stop].double()
        count = stop - start if valid is None else valid.sum()
        answer.sums[0] += count
        answer.sums[1] += _sum(found.loss, valid)
        if request.cross_entropy and found.cross_entropy is not None:
            answer.sums[4] += _sum(found.cross_entropy, valid)
        if not request.statistics:
            return
        answer.sums[2] += _sum(found.weight, valid)
        answer.sums[3] += _sum(found.confidence, valid)
        answer.label_counts += _counts(found.label, valid, len(answer.label_counts))
        if found.k is None:
            answer.k_counts[0] += count
        else:
            answer.k_counts += _counts(found.k.long() - 1, valid, len(answer.k_counts))

    def finish(self) -> None:
        """The mean, if it was asked for."""
        if self.request.mean:
            total = self.answer.sums[0]
            self.answer.loss.copy_(self.answer.sums[1] / torch.where(total > 0, total, 1.0))


def _sum(values: Tensor, valid: Tensor | None) -> Tensor:
    """In fp64: half a million fp32 losses, added one by one, are off in the sixth digit."""
    return values.sum(dtype=torch.float64) if valid is None else (values * valid).sum()


def _counts(index: Tensor, valid: Tensor | None, bins: int) -> Tensor:
    weight = torch.ones_like(index, dtype=torch.float64) if valid is None else valid
    return weight.new_zeros(bins).scatter_add_(0, index, weight)


def multiply(grad: Tensor, upstream: Tensor) -> Tensor:
    """`grad` (B,C,*spatial), overwritten, times `upstream`, 0-dim or (B,*spatial).

    In chunks where precisions differ, for which a CPU would make fp32 copies of all of it.
    """
    if upstream.dim() == 0 or grad.dtype == upstream.dtype or grad.device.type != "cpu":
        return grad.mul_(upstream.unsqueeze(1) if upstream.dim() else upstream)
    source, sink = Direct(grad, upstream.dtype), DirectSink(grad, upstream.dtype)
    factor = upstream.reshape(len(sink.flat), -1)
    length = max(LEAST // grad.shape[1], 1)
    for image in range(len(factor)):
        for start in range(0, factor.shape[1], length):
            stop = min(start + length, factor.shape[1])
            product = source.read(image, start, stop) * factor[image, start:stop]
            sink.flat[image, :, start:stop] = product
    return grad
