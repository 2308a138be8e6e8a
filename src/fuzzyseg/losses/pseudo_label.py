"""Per-pixel pseudo-label losses (hard, soft, thresholded, fuzzy), and the module that methods use.

All have the signature `(student_logits, teacher, *, size, valid, threshold, maps=False, **options) -> PixelLoss`.
Student logits (B,C,h,w) and teacher logits, (B,C,h,w) or `Mixed`, are interpolated to `size` = (H,W) with
align_corners=True, as in the networks' heads. valid (B,H,W) is bool or non-negative weights. The teacher is detached.
Computations are in fp32 (fp64 stays fp64). A NaN in the student's or teacher's logits makes a valid pixel's loss NaN.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fuzzyseg.losses.base import at_one_size, check_map, check_pair, check_threshold, histogram, labels, local_mean
from fuzzyseg.losses.fpl.adaptive_threshold import Adaptive, adaptive_map
from fuzzyseg.losses.fpl.options import FPLOptions, SetKeywords, SetOptions
from fuzzyseg.losses.fpl.reference import FuzzyMap, one_label_map
from fuzzyseg.losses.fpl.threshold import Conformal, Policy, Schedule
from fuzzyseg.losses.kernels.chunked import LossOutputs
from fuzzyseg.losses.kernels.custom_op import pseudo_label
from fuzzyseg.ops.mix import Mixed
from fuzzyseg.ops.resize import full_precision


@dataclass
class PixelLoss:
    """Result of a pixel loss: the differentiable `loss` (B,H,W), 0 where invalid, and detached maps if requested.

    k: number of positive classes. weight: the loss weight. confidence, label: the teacher's largest probability and its
    class. stats: detached statistics over this process's valid pixels: confidence and label_histogram (C,); weight, if
    the loss has one; for set losses, k_histogram (C-1,), the fraction of pixels per K, from K = 1; and balance (the
    factor), if enabled.
    """

    loss: Tensor
    k: Tensor | None = None
    weight: Tensor | None = None
    confidence: Tensor | None = None
    label: Tensor | None = None
    stats: dict[str, Tensor] = field(default_factory=dict)


Logits = TypeVar("Logits", bound=Tensor | Mixed)

PixelFunction = Callable[..., PixelLoss]
"""A pseudo-label loss with the signature given in the module docstring."""


def hard(
    student_logits: Tensor,
    teacher: Tensor | Mixed,
    *,
    size: Sequence[int],
    valid: Tensor,
    threshold: float | Tensor = 0.9,
    maps: bool = False,
    **options: Unpack[SetOptions],
) -> PixelLoss:
    """Compute cross entropy on the teacher's most probable class at every valid pixel.

    With `balance`, the loss is multiplied by the factor that `fuzzy` would have with the same options. This serves as a
    control for the effect of FPL's scale alone. Threshold and options affect only this factor.
    """
    check_map("valid", valid, check_pair(student_logits, teacher, size), student_logits.device)
    choice = FPLOptions.of(options)
    stats: dict[str, Tensor] = {}
    with full_precision(student_logits.device):
        if options.get("balance"):
            check_threshold(threshold, valid.shape, student_logits.device)
            given: dict[str, Any] = {"size": size, "valid": valid, "threshold": threshold}
            with torch.no_grad():
                _, stats = pseudo_label(student_logits, teacher, choice, statistics=False, balance=True, **given)
        outputs, measured = pseudo_label(student_logits, teacher, None, size=size, valid=valid, maps=maps)
        kept = {"confidence": measured["mean_confidence"], "label_histogram": measured["label_histogram"]}
        return _result(outputs, valid, {**kept, **stats}, maps=maps)


def soft(
    student_logits: Tensor,
    teacher: Tensor | Mixed,
    *,
    size: Sequence[int],
    valid: Tensor,
    threshold: float | Tensor = 0.9,
    maps: bool = False,
) -> PixelLoss:
    """Compute cross entropy against the teacher's probabilities, -sum p log softmax(z). The threshold is ignored."""
    with full_precision(student_logits.device):
        student, target = both_sides(student_logits, teacher, size, valid)
        p = torch.softmax(target, 1)
        probability, label = p.max(1)
        loss = -(p * torch.log_softmax(student, 1)).sum(1)
        return _one_label(one_label_map(loss, probability, label), valid, student.shape[1], {}, maps=maps)


def thresholded(
    student_logits: Tensor,
    teacher: Tensor | Mixed,
    *,
    size: Sequence[int],
    valid: Tensor,
    threshold: float | Tensor = 0.9,
    maps: bool = False,
    confidence: float = 0.95,
) -> PixelLoss:
    """Compute `hard` where the teacher's largest probability is at least `confidence`, in [0, 1]; 0 elsewhere.

    K. Sohn et al., "FixMatch", NeurIPS 2020. Pixels below `confidence` still count in the denominator of the mean, so
    the loss grows with the teacher's confidence. The weight is 1 for selected pixels and 0 for others. The threshold T,
    which bounds a sum of probabilities, is ignored.
    """
    if not 0 <= confidence <= 1:
        raise ValueError(f"confidence: found {confidence!r}, expected a probability in [0, 1]")
    with full_precision(student_logits.device):
        student, target = both_sides(student_logits, teacher, size, valid)
        probability, label = torch.softmax(target, 1).max(1)
        kept = (probability >= confidence).to(probability.dtype)
        loss = kept * F.cross_entropy(student, label, reduction="none")
        outputs = one_label_map(loss, probability, label)._replace(weight=kept)
        return _one_label(outputs, valid, student.shape[1], {"weight": local_mean(kept, valid)}, maps=maps)


def fuzzy(student_logits: Tensor, teacher: Tensor | Mixed, **given: Unpack[SetKeywords]) -> PixelLoss:
    """Compute the FPL loss (`fuzzyseg.losses.fpl.reference`).

    Each process computes its own `balance`, as in the published code. With k_cap=1, this is `hard` times FPL's weight
    for K = 1.
    """
    return over_set(None, student_logits, teacher, **given)


def over_set(
    function: Callable[[Tensor, Tensor], Tensor] | None,
    student_logits: Tensor,
    teacher: Tensor | Mixed,
    *,
    size: Sequence[int],
    valid: Tensor,
    threshold: float | Tensor = 0.9,
    maps: bool = False,
    **options: Unpack[SetOptions],
) -> PixelLoss:
    """Compute a loss over the fuzzy positive set: Eq. 7, or `function(student logits, membership)` if given."""
    check_map("valid", valid, check_pair(student_logits, teacher, size), student_logits.device)
    check_threshold(threshold, valid.shape, student_logits.device)
    with full_precision(student_logits.device):
        outputs, stats = pseudo_label(
            student_logits, teacher, FPLOptions.of(options), size=size, valid=valid, threshold=threshold,
            maps=maps, balance=options.get("balance", False), function=function,
        )  # fmt: skip
        return _result(outputs, valid, {name.removeprefix("mean_"): value for name, value in stats.items()}, maps=maps)


def both_sides(
    student_logits: Tensor, teacher: Tensor | Mixed, size: Sequence[int], valid: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the student's and the detached teacher's logits, resized to `size`: (B,C,H,W) each."""
    check_map("valid", valid, check_pair(student_logits, teacher, size), student_logits.device)
    return at_one_size(student_logits, teacher, size)


def _result(outputs: LossOutputs | FuzzyMap, valid: Tensor, stats: dict[str, Tensor], *, maps: bool) -> PixelLoss:
    """Apply the balance factor, if there is one, and set the loss to 0 where invalid."""
    loss = outputs.loss * stats["balance"] if "balance" in stats else outputs.loss
    loss = torch.where(valid > 0, loss, 0)
    if not maps:
        return PixelLoss(loss, stats=stats)
    return PixelLoss(loss, outputs.k, outputs.weight, outputs.confidence, outputs.label, stats)


def _one_label(outputs: FuzzyMap, valid: Tensor, classes: int, stats: Mapping[str, Tensor], *, maps: bool) -> PixelLoss:
    """Return the result of a loss with one target per pixel; its statistics do not include K."""
    means = {"confidence": local_mean(outputs.confidence, valid)}
    labelled = {"label_histogram": histogram(outputs.label, valid, classes)}
    return _result(outputs, valid, {**means, **labelled, **stats}, maps=maps)


class PixelLossModule(nn.Module):
    """Pseudo-label loss module used by the methods, with its options and a buffer for the threshold T.

    threshold: a number in (0, 1] or a policy. `Schedule` sets the buffer from `progress` in every call. With
    `Calibrated` and `Conformal` the caller sets it; `Conformal` has a second buffer, `temperature`, by which the
    teacher's logits are divided. `Adaptive` selects one of its candidates for each pixel. With a policy, the statistics
    also contain `threshold`, the mean T over valid pixels; for `Conformal` also `temperature`; for `Adaptive` also
    `threshold_histogram`, the fraction of pixels with each candidate.
    """

    threshold: Tensor
    temperature: Tensor

    def __init__(self, function: PixelFunction, options: Mapping[str, Any], threshold: float | Policy = 0.9) -> None:
        super().__init__()
        self.policy = threshold if isinstance(threshold, tuple) else None
        if isinstance(threshold, Adaptive):
            threshold.check()
            first = threshold.candidates[0]
        elif isinstance(threshold, tuple):
            first = threshold.start
        else:
            check_threshold(threshold, (), torch.device("cpu"))
            first = threshold
        self.function = function
        self.options = dict(options)
        self.register_buffer("threshold", torch.tensor(float(first)))
        if isinstance(threshold, Conformal):
            self.register_buffer("temperature", torch.ones(()))
            if threshold.classes is not None:
                self.threshold = torch.full((threshold.classes,), first)

    def forward(
        self,
        student_logits: Tensor,
        teacher: Tensor | Mixed,
        *,
        size: Sequence[int],
        valid: Tensor,
        progress: tuple[int, int],
        maps: bool = False,
    ) -> PixelLoss:
        """Compute the loss maps at `size`. progress: (finished steps, total steps), for a threshold schedule."""
        if isinstance(self.policy, Schedule):
            self.threshold.fill_(self.policy.at(*progress))
        teacher = self.tempered(teacher)
        threshold = self.thresholds(teacher, size)
        given = {"size": size, "valid": valid, "threshold": threshold, "maps": maps}
        result = self.function(student_logits, teacher, **given, **self.options)
        if isinstance(self.policy, Adaptive):
            result.stats["threshold"] = local_mean(threshold, valid)
            place = torch.zeros_like(threshold, dtype=torch.long)
            for candidate in self.policy.candidates[:-1]:
                place += threshold > candidate
            result.stats["threshold_histogram"] = histogram(place, valid, len(self.policy.candidates))
        elif self.policy is not None:
            result.stats["threshold"] = threshold if threshold.dim() == 0 else local_mean(threshold, valid)
        if isinstance(self.policy, Conformal):
            result.stats["temperature"] = self.temperature.clone()
        return result

    def tempered(self, teacher: Logits) -> Logits:
        """Return the detached teacher logits divided by the temperature; unchanged for policies without one."""
        if not isinstance(self.policy, Conformal):
            return teacher
        if isinstance(teacher, Mixed):
            return replace(teacher, a=teacher.a.detach() / self.temperature, b=teacher.b.detach() / self.temperature)
        return teacher.detach() / self.temperature  # type: ignore[return-value]

    def thresholds(self, teacher: Tensor | Mixed, size: Sequence[int]) -> Tensor:
        """Return the current T for teacher logits (B,C,h,w): 0-dim, or one value per pixel, (B,*size)."""
        if isinstance(self.policy, Conformal) and self.policy.classes is not None:
            return self.threshold[labels(teacher, size)]
        if not isinstance(self.policy, Adaptive):
            return self.threshold.clone()  # the next call may change the buffer before this one's backward pass
        return adaptive_map(teacher, size, self.policy, FPLOptions.of(self.options))

    def extra_repr(self) -> str:
        """Return the function's name, its options and its policy."""
        name = getattr(self.function, "__name__", repr(self.function))
        policy = [] if self.policy is None else [repr(self.policy)]
        return ", ".join([name, *(f"{key}={value!r}" for key, value in self.options.items()), *policy])
