"""What a kernel is asked for, and what it gives back: the same for every implementation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fuzzyseg.losses.fpl.options import Rule, Variant, WeightKind
from fuzzyseg.losses.kernels.chunk_io import gradient_like


@dataclass(frozen=True)
class Options:
    """The loss of one pixel. kind: `fuzzy` or `hard`; cap: the largest K, from 1 to C-1; the rest as everywhere."""

    kind: str
    weight: WeightKind
    a: float
    cap: int
    rule: Rule
    variant: Variant

    @property
    def continuous(self) -> bool:
        """Whether a class may be positive in part: a lone positive leaves no room for one."""
        return self.rule == "continuous" and self.cap > 1


@dataclass(frozen=True)
class Request:
    """One call. Everything is checked; no gradient is recorded inside.

    student (B,C,*spatial); teacher the same, or the first of two mixed images, then `other` is the second and `mask`
    (B,*spatial at `size`) is True where it is read. size: the spatial size of the loss; where it is not that of the
    logits (four axes alone), they are interpolated bilinearly, with `align_corners`, and then mixed. valid
    (B,*spatial): bool or non-negative weights, or None. threshold: 0-dim or (B,*spatial). `mean`: the mean over valid
    pixels, else the map, unmultiplied by valid. `gradient`: whether one is wanted. `statistics`, `maps`,
    `cross_entropy`: what else is.
    """

    student: Tensor
    teacher: Tensor
    other: Tensor | None
    mask: Tensor | None
    valid: Tensor | None
    threshold: Tensor
    size: tuple[int, ...]
    align_corners: bool
    options: Options
    mean: bool
    gradient: bool
    statistics: bool
    maps: bool
    cross_entropy: bool

    @property
    def loss_shape(self) -> torch.Size:
        """(B,*spatial) of the loss."""
        return torch.Size((self.student.shape[0], *self.size))

    @property
    def precision(self) -> torch.dtype:
        """The precision of the computation: fp32, or fp64 for fp64 logits."""
        return torch.float64 if self.student.dtype == torch.float64 else torch.float32

    @property
    def raised(self) -> bool:
        """Whether the student's logits have another size than the loss."""
        return tuple(self.student.shape[2:]) != tuple(self.size)


@dataclass
class Answer:
    """What a kernel found; a tensor that was not asked for has no element.

    loss: 0-dim, or (B,*spatial). grad: shaped like the student: its derivative, of the mean where that was asked for,
    else of each pixel's loss by its own logits, to be multiplied by the gradient that arrives at the map (for raised
    logits the sum over pixels times valid); or empty where `state` holds what a backward kernel needs. sums (5,) fp64,
    over the pixels times valid: valid, loss, weight, confidence, cross entropy on the label. k_counts (C-1,) and
    label_counts (C,) fp64. k, label int64, weight, confidence: maps (B,*spatial).
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

    @staticmethod
    def empty(request: Request) -> Answer:
        """An answer with room for what is asked for: sums and counts are 0, the rest is of any content."""
        like, shape = request.student, request.loss_shape
        classes = like.shape[1] if request.statistics else 0
        asked = shape if request.maps else torch.Size((0,))
        return Answer(
            loss=like.new_empty(() if request.mean else shape, dtype=request.precision),
            grad=gradient_like(like) if request.gradient else like.new_empty(0),
            state=like.new_empty(0),
            sums=like.new_zeros(5, dtype=torch.float64),
            k_counts=like.new_zeros(max(classes - 1, 0), dtype=torch.float64),
            label_counts=like.new_zeros(classes, dtype=torch.float64),
            k=like.new_empty(asked, dtype=torch.int64),
            weight=like.new_empty(asked, dtype=request.precision),
            confidence=like.new_empty(asked, dtype=request.precision),
            label=like.new_empty(asked, dtype=torch.int64),
        )

    def statistics(self) -> dict[str, Tensor]:
        """Over the valid pixels: k_histogram (C-1,), label_histogram (C,), mean_weight, mean_confidence."""
        total = torch.where(self.sums[0] > 0, self.sums[0], 1.0)
        return {
            "k_histogram": (self.k_counts / total).float(),
            "label_histogram": (self.label_counts / total).float(),
            "mean_weight": (self.sums[2] / total).to(self.loss.dtype),
            "mean_confidence": (self.sums[3] / total).to(self.loss.dtype),
        }

    def balance(self) -> Tensor:
        """What scales the mean to that of the cross entropy on the label, 1 where it is 0 or too small to divide by."""
        total = torch.where(self.sums[0] > 0, self.sums[0], 1.0)
        fuzzy, hard = self.sums[1] / total, self.sums[4] / total
        return torch.where(fuzzy > 1e-30, hard / fuzzy, 1.0).to(self.loss.dtype)

    def tensors(self) -> tuple[Tensor, ...]:
        """In the order of the fields."""
        return tuple(vars(self).values())
