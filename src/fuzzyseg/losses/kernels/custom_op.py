"""Selection of a loss's form, and a torch custom op with a backward op for the fast forms.

The forward op writes the gradient of the mean, or of each pixel's loss in a map; the backward pass multiplies it in
place by the incoming gradient. For resized logits the gradient is a sum over pixels, which cannot be weighted
afterwards. The forward op therefore assumes that a mean over `valid` follows, as in every method, and the backward op
recomputes the chunks only if the incoming gradient shows otherwise. torch.compile treats each op as one node.
"""

import os
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, library
from torch.autograd.function import FunctionCtx

from fuzzyseg.losses.base import at_one_size, full_precision
from fuzzyseg.losses.fpl.options import FPLOptions
from fuzzyseg.losses.fpl.reference import FuzzyMap, balance_factor, fuzzy_positive_map
from fuzzyseg.losses.fpl.reference import statistics as reference_statistics
from fuzzyseg.losses.kernels import chunked
from fuzzyseg.losses.kernels.chunk_io import gradient_like
from fuzzyseg.losses.kernels.chunked import LossInputs, LossOutputs
from fuzzyseg.ops.mix import Mixed

HAS_TRITON = find_spec("triton") is not None
"""Whether Triton, which is optional, is installed; it is imported on first use."""

FORMS = ("reference", "chunked", "triton")
"""Allowed values of FUZZYSEG_KERNEL (`fuzzyseg.losses.kernels`)."""

_ARGUMENTS = (
    "Tensor student, Tensor teacher, Tensor? other, Tensor? mask, Tensor? valid, Tensor threshold, SymInt[] size, "
    "bool align_corners, str weight, float a, SymInt? k_cap, str rule, str variant, bool mean, bool gradient, "
    "bool statistics, bool maps, bool cross_entropy, str form"
)
_TENSORS = 6
"""Number of tensor arguments, which come first."""

_LIBRARY: Any = library.Library("fuzzyseg", "FRAGMENT")  # type: ignore[no-untyped-call]
_LIBRARY.define(f"pseudo_label({_ARGUMENTS}) -> ({', '.join(['Tensor'] * 10)})")
_LIBRARY.define(f"pseudo_label_backward(Tensor upstream, Tensor grad, Tensor state, {_ARGUMENTS}) -> Tensor")


def choose(student: Tensor, teacher: Tensor | Mixed) -> str:
    """Select the form for these logits. Raises ValueError for an unknown name in FUZZYSEG_KERNEL."""
    requested = os.environ.get("FUZZYSEG_KERNEL", "")
    if requested and requested not in FORMS:
        raise ValueError(f"FUZZYSEG_KERNEL: found {requested!r}, expected one of {', '.join(FORMS)}, or nothing")
    sides = [student, teacher.a, teacher.b] if isinstance(teacher, Mixed) else [student, teacher]
    double = {side.dtype == torch.float64 for side in sides}
    device = student.device.type
    if requested == "reference" or device not in ("cpu", "cuda") or len(double) > 1 or student.numel() == 0:
        return "reference"
    runs_triton = device == "cuda" or os.environ.get("TRITON_INTERPRET") == "1"
    # Not the default on CUDA until the kernels' tests have passed on a GPU.
    return "triton" if requested == "triton" and HAS_TRITON and runs_triton and not any(double) else "chunked"


def pseudo_label(
    student: Tensor,
    teacher: Tensor | Mixed,
    options: FPLOptions | None,
    *,
    threshold: float | Tensor = 0.9,
    size: Sequence[int] | None = None,
    align_corners: bool = True,
    valid: Tensor | None = None,
    mean: bool = False,
    statistics: bool = True,
    maps: bool = False,
    balance: bool = False,
    function: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> tuple[LossOutputs | FuzzyMap, dict[str, Tensor]]:
    """Compute the fuzzy loss (the hard one if options is None) and its statistics with the form from `choose`.

    Arguments are not checked. The loss is a map; with `mean` it may be the mean over valid pixels. Only the loss has a
    gradient. balance: also return the factor of `balance_factor`. function: replaces Eq. 7, in the reference form.
    Logits that are not (B,C,h,w) are first interpolated to `size` as a whole.
    """
    form = "reference" if function else choose(student, teacher)
    if form == "reference" or (size is not None and student.dim() != 4):
        student, teacher = at_one_size(student, teacher, size, align_corners=align_corners)
    stats: dict[str, Tensor] = {}
    if form == "reference":
        assert isinstance(teacher, Tensor)
        by_pixel = fuzzy_positive_map(student, teacher, threshold, options, function)
        stats = reference_statistics(by_pixel, valid, student.shape[1]) if statistics else {}
        if balance:
            stats["balance"] = balance_factor(by_pixel.loss, student, by_pixel.label, valid)
        return by_pixel, stats
    shape = tuple(student.shape[2:]) if size is None or student.dim() != 4 else tuple(size)
    if options is not None:
        options.cap(student.shape[1])  # raises for a fixed K that is too large
    precision = torch.float64 if student.dtype == torch.float64 else torch.float32
    inputs = LossInputs(
        student,
        (teacher.a if isinstance(teacher, Mixed) else teacher).detach(),
        teacher.b.detach() if isinstance(teacher, Mixed) else None,
        teacher.mask if isinstance(teacher, Mixed) else None,
        None if valid is None else valid.detach(),
        threshold.detach() if isinstance(threshold, Tensor) else torch.tensor(float(threshold), dtype=precision),
        shape,
        align_corners,
        options,
        mean=mean,
        gradient=student.requires_grad and torch.is_grad_enabled(),
        statistics=statistics,
        maps=maps,
        cross_entropy=balance,
    )
    tensors = torch.ops.fuzzyseg.pseudo_label(*_packed(inputs), form)
    outputs = LossOutputs(tensors[0], *(value.detach() for value in tensors[1:]))
    stats = outputs.statistics() if statistics else {}
    if balance:
        stats["balance"] = outputs.balance()
    return outputs, stats


def _triton() -> ModuleType:
    from fuzzyseg.losses.kernels.cuda import launch

    return launch


def _packed(inputs: LossInputs) -> tuple[Any, ...]:
    i, o = inputs, inputs.options
    tensors = (i.student, i.teacher, i.other, i.mask, i.valid, i.threshold)
    options = ("", 0.0, None, "", "") if o is None else (o.weight, float(o.a), o.k_cap, str(o.rule), o.variant)
    requested = (i.mean, i.gradient, i.statistics, i.maps, i.cross_entropy)
    return (*tensors, list(i.size), i.align_corners, *options, *requested)


def _unpacked(*arguments: Any) -> LossInputs:
    tensors, rest = arguments[:_TENSORS], arguments[_TENSORS:]
    size, align_corners, weight, a, k_cap, rule, variant, *requested = rest
    options = FPLOptions(weight, a, k_cap, int(rule) if rule.isdigit() else rule, variant) if weight else None
    fields: list[Any] = [*tensors, tuple(size), align_corners, options, *requested]
    return LossInputs(*fields)


def _run(inputs: LossInputs, form: str, upstream: Tensor | None = None) -> LossOutputs:
    """Run a form without autocast, which may be enabled where a compiled graph runs."""
    with torch.no_grad(), full_precision(inputs.student.device):
        if form == "triton":
            outputs: LossOutputs = _triton().run(inputs)
            return outputs
        return chunked.run(inputs, upstream)


def _forward(*arguments: Any) -> tuple[Tensor, ...]:
    *rest, form = arguments
    return _run(_unpacked(*rest), form).tensors()


def _fake(*arguments: Any) -> tuple[Tensor, ...]:
    *rest, form = arguments
    inputs = _unpacked(*rest)
    return (_triton().empty_outputs(inputs) if form == "triton" else LossOutputs.empty(inputs)).tensors()


def _backward_kernel(upstream: Tensor, grad: Tensor, state: Tensor, *arguments: Any) -> Tensor:
    *rest, form = arguments
    inputs = _unpacked(*rest)
    if form == "triton":
        with full_precision(upstream.device):
            gradient: Tensor = _triton().backward(inputs, state, upstream)
        return gradient
    factor = _common_factor(upstream, inputs.valid)
    if factor is not None:
        return (grad * factor).to(grad.dtype)
    return _run(inputs, form, upstream).grad


def _common_factor(upstream: Tensor, valid: Tensor | None) -> Tensor | None:
    """Return c if upstream = c * valid up to rounding, otherwise None. Works per image to save memory."""
    if upstream.device.type != "cpu":  # the comparison would synchronise
        return None
    largest = torch.zeros((), dtype=torch.int64)  # flat index
    if valid is not None:
        largest = (valid.view(torch.uint8) if valid.dtype == torch.bool else valid).argmax()
    at = torch.ones((), dtype=upstream.dtype) if valid is None else valid.flatten()[largest].to(upstream.dtype)
    factor = upstream.flatten()[largest] / at
    close = 4 * torch.finfo(upstream.dtype).eps
    for image, arrived in enumerate(upstream):
        supposed = factor.expand_as(arrived) if valid is None else factor * valid[image]
        if not bool(((arrived - supposed).abs() <= close * supposed.abs()).all()):
            return None
    return factor


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    request = _unpacked(*inputs[:-1])
    outputs = LossOutputs(*output)
    ctx.set_materialize_grads(False)
    by_state = outputs.state.numel() > 0
    ctx.recompute = (request.resized and not request.mean) or by_state
    ctx.rest = inputs[_TENSORS:]
    kept: Sequence[Tensor | None] = inputs[:_TENSORS] if ctx.recompute else ()
    if by_state:  # the state replaces the teacher, so that its memory can be freed
        kept = (request.student, request.student, None, None, request.valid, request.threshold)
    ctx.save_for_backward(outputs.grad, outputs.state, *kept)


def _backward(ctx: Any, upstream: Tensor | None, *unused: Tensor | None) -> tuple[Tensor | None, ...]:
    nothing = (None,) * (_TENSORS - 1 + len(ctx.rest))
    if upstream is None:
        return None, *nothing
    grad, state, *kept = ctx.saved_tensors
    with torch.no_grad():
        if ctx.recompute:
            gradient = torch.ops.fuzzyseg.pseudo_label_backward(upstream, grad, state, *kept, *ctx.rest)
        else:  # detached: as an output of the forward pass it would keep the graph alive
            gradient = _multiplied(grad.detach(), upstream.detach(), ctx.rest[-1])
    if torch.is_grad_enabled():  # create_graph: the gradient depends on the logits, even where `upstream` is a constant
        gradient = _Once.apply(gradient, upstream, kept[0] if ctx.recompute else grad)
    return gradient, *nothing


def _multiplied(grad: Tensor, upstream: Tensor, form: str) -> Tensor:
    """Multiply grad by upstream, 0-dim or a map, in place unless the graph is kept."""
    if torch.compiler.is_compiling() or _graph_is_kept():
        return (grad * (upstream.unsqueeze(1) if upstream.dim() else upstream)).to(grad.dtype)
    if form == "triton":
        product: Tensor = _triton().multiply(grad, upstream)
        return product
    if upstream.dim() == 0 and upstream.device.type == "cpu" and float(upstream) == 1:
        return grad
    return chunked.multiply(grad, upstream)


def _graph_is_kept() -> bool:
    """Return whether another backward pass may follow (retain_graph); True if unknown."""
    # No public API reports retain_graph, and a saved gradient may be overwritten only without it.
    keeps_graph: Callable[[], bool] | None = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", None)
    return True if keeps_graph is None else keeps_graph()


class _Once(torch.autograd.Function):
    """Identity function whose backward raises an error."""

    @staticmethod
    def forward(ctx: FunctionCtx, grad: Tensor, upstream: Tensor, anchor: Tensor) -> Tensor:
        """Return `grad`; `anchor` connects it to the graph of the logits."""
        return grad.view_as(grad)

    @staticmethod
    def backward(ctx: FunctionCtx, *gradient: Tensor) -> Any:
        """Raise RuntimeError instead of returning a wrong second derivative."""
        raise RuntimeError(
            "the fast form of the pseudo-label losses has no second derivative; set the environment variable "
            "FUZZYSEG_KERNEL=reference to use the reference form, which has one"
        )


_LIBRARY.impl("pseudo_label", _forward, "CompositeExplicitAutograd")
_LIBRARY.impl("pseudo_label_backward", _backward_kernel, "CompositeExplicitAutograd")
library.register_fake("fuzzyseg::pseudo_label", _fake, lib=_LIBRARY)
library.register_fake(
    "fuzzyseg::pseudo_label_backward",
    lambda upstream, grad, state, student, *rest: gradient_like(student),
    lib=_LIBRARY,
)
library.register_autograd("fuzzyseg::pseudo_label", _backward, setup_context=_setup, lib=_LIBRARY)
