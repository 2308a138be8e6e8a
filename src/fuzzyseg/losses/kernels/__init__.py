"""`fuzzy` and `hard` made fast: one call, and the one place where an implementation is chosen.

| form | where | file |
| --- | --- | --- |
| `reference` | everywhere; alone where none of the others is for the device | `fuzzyseg.losses.fuzzy`, `.pixel` |
| `chunked` | CPU; CUDA without triton | `chunked.py` |
| `compiled` | CPU, only if asked for: the core of `chunked`, compiled | `compiled.py` |
| `triton` | CUDA, where triton is installed; CPU in its interpreter (TRITON_INTERPRET=1), if asked for | `triton.py` |

The environment variable FUZZYSEG_KERNEL names one to be used wherever it can be. All give the same within rounding;
`reference`, which is written to be read, is what the others are tested against.

An implementation is a function `run(request: Request) -> Answer` (`request.py` says what it gets and gives). One with a
backward kernel of its own (`triton`) also has `room(request) -> Answer`, empty tensors of the shapes that `run` gives,
for torch.compile to reckon with, and `backward(request, state, upstream) -> Tensor`, the gradient of the student's
logits from `Answer.state` and the gradient that arrives at the loss, 0-dim or (B,*spatial). No graph is recorded inside
and autocast is off.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import Tensor

from fuzzyseg.losses.arguments import at_size
from fuzzyseg.losses.fpl.options import Rule, Variant, WeightKind
from fuzzyseg.losses.kernels import custom_op
from fuzzyseg.losses.kernels.types import Answer, Options, Request
from fuzzyseg.ops.mix import Mixed

FORMS = ("reference", "chunked", "compiled", "triton")


def choose(student: Tensor, teacher: Tensor | Mixed) -> str:
    """The form for these logits: see the table above. ValueError for an unknown name in FUZZYSEG_KERNEL."""
    asked = os.environ.get("FUZZYSEG_KERNEL", "")
    if asked and asked not in FORMS:
        raise ValueError(f"FUZZYSEG_KERNEL: found {asked!r}, expected one of {', '.join(FORMS)}, or nothing")
    sides = [student, teacher.a, teacher.b] if isinstance(teacher, Mixed) else [student, teacher]
    double = {side.dtype == torch.float64 for side in sides}
    device = student.device.type
    if asked == "reference" or device not in ("cpu", "cuda") or len(double) > 1 or student.numel() == 0:
        return "reference"
    if device == "cpu" and not (asked == "triton" and os.environ.get("TRITON_INTERPRET") == "1"):
        return "compiled" if asked == "compiled" else "chunked"
    return "triton" if custom_op.HAS_TRITON and asked in ("", "triton") and not any(double) else "chunked"


def pseudo_label(
    student: Tensor,
    teacher: Tensor | Mixed,
    *,
    form: str,
    kind: str,
    threshold: float | Tensor = 0.9,
    size: Sequence[int] | None = None,
    align_corners: bool = True,
    valid: Tensor | None = None,
    weight: WeightKind = "concave",
    a: float = 50.0,
    k_cap: int | None = None,
    rule: Rule = "n-1",
    variant: Variant = "paper",
    mean: bool = False,
    statistics: bool = True,
    maps: bool = False,
    cross_entropy: bool = False,
) -> Answer:
    """The loss `kind`, `fuzzy` or `hard`, by a form that `choose` gave; arguments are checked already.

    Where a size is given for logits that are not (B,C,h,w) they are interpolated as a whole first.
    """
    if size is not None and student.dim() != 4:
        student = at_size(student, size, align_corners=align_corners)
        with torch.no_grad():
            teacher = at_size(teacher, size, align_corners=align_corners)
    shape = tuple(student.shape[2:]) if size is None or student.dim() != 4 else tuple(size)
    classes = student.shape[1]
    if isinstance(rule, int) and rule >= classes:
        raise ValueError(f"rule: found K = {rule} for {classes} classes, expected at most {classes - 1}")
    if k_cap is None:
        k_cap = 3 if variant == "official" else classes
    precision = torch.float64 if student.dtype == torch.float64 else torch.float32
    request = Request(
        student,
        (teacher.a if isinstance(teacher, Mixed) else teacher).detach(),
        teacher.b.detach() if isinstance(teacher, Mixed) else None,
        teacher.mask if isinstance(teacher, Mixed) else None,
        None if valid is None else valid.detach(),
        threshold.detach() if isinstance(threshold, Tensor) else torch.tensor(float(threshold), dtype=precision),
        shape,
        align_corners,
        Options(kind, weight, float(a), min(k_cap, classes - 1), rule, variant),
        mean=mean,
        gradient=student.requires_grad and torch.is_grad_enabled(),
        statistics=statistics,
        maps=maps,
        cross_entropy=cross_entropy,
    )
    return custom_op.call(request, form)
