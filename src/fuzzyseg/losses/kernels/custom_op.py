"""The kernels as two operators of torch: one node in the graph, which torch.compile takes as it is, and its backward.

The forward pass knows all but the gradient that arrives at its loss. For the mean that is one number, and for the map a
factor of each pixel: the gradient it has written is multiplied in place. Where logits are raised to another size the
sum over pixels cannot be undone; there the forward pass supposes that a mean over `valid` follows, as in every method,
and only where the gradient that arrives tells otherwise the chunks are gone through again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, library
from torch.autograd.function import FunctionCtx

from fuzzyseg.losses.arguments import full_precision
from fuzzyseg.losses.kernels import chunked
from fuzzyseg.losses.kernels.chunk_io import gradient_like
from fuzzyseg.losses.kernels.types import Answer, Options, Request

HAS_TRITON = find_spec("triton") is not None
"""Triton is optional, and there is none for some systems; it is imported when it is first used."""

_ARGUMENTS = (
    "Tensor student, Tensor teacher, Tensor? other, Tensor? mask, Tensor? valid, Tensor threshold, SymInt[] size, "
    "bool align_corners, str kind, str weight, float a, SymInt cap, str rule, str variant, bool mean, bool gradient, "
    "bool statistics, bool maps, bool cross_entropy, str form"
)
_TENSORS = 6
"""How many of the arguments are tensors, the first ones."""

_LIBRARY: Any = library.Library("fuzzyseg", "FRAGMENT")  # type: ignore[no-untyped-call]
_LIBRARY.define(f"pseudo_label({_ARGUMENTS}) -> ({', '.join(['Tensor'] * 10)})")
_LIBRARY.define(f"pseudo_label_backward(Tensor upstream, Tensor grad, Tensor state, {_ARGUMENTS}) -> Tensor")


def call(request: Request, form: str) -> Answer:
    """The answer of an implementation, `chunked`, `compiled` or `triton`; its loss has a gradient, nothing else."""
    found = torch.ops.fuzzyseg.pseudo_label(*_packed(request), form)
    return Answer(found[0], *(value.detach() for value in found[1:]))


def _triton() -> ModuleType:
    from fuzzyseg.losses.kernels.cuda import launch

    return launch


def _packed(request: Request) -> tuple[Any, ...]:
    r, o = request, request.options
    tensors = (r.student, r.teacher, r.other, r.mask, r.valid, r.threshold)
    options = (o.kind, o.weight, o.a, o.cap, str(o.rule), o.variant)
    asked = (r.mean, r.gradient, r.statistics, r.maps, r.cross_entropy)
    return (*tensors, list(r.size), r.align_corners, *options, *asked)


def _unpacked(*arguments: Any) -> Request:
    tensors, rest = arguments[:_TENSORS], arguments[_TENSORS:]
    size, align_corners, kind, weight, a, cap, rule, variant, *asked = rest
    options = Options(kind, weight, a, cap, int(rule) if rule.isdigit() else rule, variant)
    fields: list[Any] = [*tensors, tuple(size), align_corners, options, *asked]
    return Request(*fields)


def _run(request: Request, form: str, upstream: Tensor | None = None) -> Answer:
    """By the implementation's name. Autocast, which may be on where a compiled graph runs, has no say in here."""
    with torch.no_grad(), full_precision(request.student.device):
        if form == "triton":
            found: Answer = _triton().run(request)
            return found
        return chunked.run(request, form, upstream)


def _forward(*arguments: Any) -> tuple[Tensor, ...]:
    *rest, form = arguments
    return _run(_unpacked(*rest), form).tensors()


def _fake(*arguments: Any) -> tuple[Tensor, ...]:
    *rest, form = arguments
    request = _unpacked(*rest)
    return (_triton().room(request) if form == "triton" else Answer.empty(request)).tensors()


def _backward_kernel(upstream: Tensor, grad: Tensor, state: Tensor, *arguments: Any) -> Tensor:
    *rest, form = arguments
    request = _unpacked(*rest)
    if form == "triton":
        with full_precision(upstream.device):
            found: Tensor = _triton().backward(request, state, upstream)
        return found
    factor = _common_factor(upstream, request.valid)
    if factor is not None:
        return (grad * factor).to(grad.dtype)
    return _run(request, form, upstream).grad


def _common_factor(upstream: Tensor, valid: Tensor | None) -> Tensor | None:
    """c where upstream = c * valid, within rounding; else None. Image by image, to need little memory."""
    if upstream.device.type != "cpu":  # a look would wait
        return None
    largest = torch.zeros((), dtype=torch.int64) if valid is None else _largest(valid)
    at = torch.ones((), dtype=upstream.dtype) if valid is None else valid.flatten()[largest].to(upstream.dtype)
    factor = upstream.flatten()[largest] / at
    close = 4 * torch.finfo(upstream.dtype).eps
    for image, arrived in enumerate(upstream):
        supposed = factor.expand_as(arrived) if valid is None else factor * valid[image]
        if not bool(((arrived - supposed).abs() <= close * supposed.abs()).all()):
            return None
    return factor


def _largest(valid: Tensor) -> Tensor:
    """Where in all of `valid` its largest value stands."""
    return (valid.view(torch.uint8) if valid.dtype == torch.bool else valid).argmax()


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    request = _unpacked(*inputs[:-1])
    answer = Answer(*output)
    ctx.set_materialize_grads(False)
    by_state = answer.state.numel() > 0
    ctx.whole = (request.raised and not request.mean) or by_state
    ctx.rest = inputs[_TENSORS:]
    kept: Sequence[Tensor | None] = inputs[:_TENSORS] if ctx.whole else ()
    if by_state:  # which holds all of the teacher that is needed: it is not kept alive
        kept = (request.student, request.student, None, None, request.valid, request.threshold)
    ctx.save_for_backward(answer.grad, answer.state, *kept)


def _backward(ctx: Any, upstream: Tensor | None, *unused: Tensor | None) -> tuple[Tensor | None, ...]:
    nothing = (None,) * (_TENSORS - 1 + len(ctx.rest))
    if upstream is None:
        return None, *nothing
    grad, state, *kept = ctx.saved_tensors
    with torch.no_grad():
        if ctx.whole:
            found = torch.ops.fuzzyseg.pseudo_label_backward(upstream, grad, state, *kept, *ctx.rest)
        else:  # detached: as an output of the forward pass it would keep the graph alive
            found = _multiplied(grad.detach(), upstream.detach(), ctx.rest[-1])
    if torch.is_grad_enabled():  # create_graph: the gradient depends on the logits, even where `upstream` is a constant
        found = _Once.apply(found, upstream, kept[0] if ctx.whole else grad)
    return found, *nothing


def _multiplied(grad: Tensor, upstream: Tensor, form: str) -> Tensor:
    """grad times upstream, 0-dim or a map, in place unless it will be wanted again."""
    if torch.compiler.is_compiling() or _graph_is_kept():
        return (grad * (upstream.unsqueeze(1) if upstream.dim() else upstream)).to(grad.dtype)
    if form == "triton":
        found: Tensor = _triton().multiply(grad, upstream)
        return found
    if upstream.dim() == 0 and upstream.device.type == "cpu" and float(upstream) == 1:
        return grad
    return chunked.multiply(grad, upstream)


def _graph_is_kept() -> bool:
    """Whether this backward pass may be followed by another one (retain_graph); True where torch does not tell."""
    ask: Callable[[], bool] | None = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", None)
    return True if ask is None else ask()


class _Once(torch.autograd.Function):
    """The identity, which cannot be differentiated."""

    @staticmethod
    def forward(ctx: FunctionCtx, grad: Tensor, upstream: Tensor, anchor: Tensor) -> Tensor:
        """`grad` as it is; `anchor` is of the graph of the logits that it depends on."""
        return grad.view_as(grad)

    @staticmethod
    def backward(ctx: FunctionCtx, *gradient: Tensor) -> Any:
        """Never a wrong second derivative."""
        raise RuntimeError(
            "the fast form of the pseudo-label losses has no second derivative; "
            "set the environment variable FUZZYSEG_KERNEL=reference for the readable form, which has"
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
