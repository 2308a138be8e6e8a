"""Public interface of Fuzzy Positive Learning: a function and a module.

The method is explained in `fuzzyseg.losses.fpl.reference`; `fuzzyseg.losses.kernels` contains the fast implementations.
"""

from collections.abc import Sequence
from typing import Any, Literal, TypedDict, Unpack, get_args, overload

import torch
from torch import Tensor, nn

from fuzzyseg.losses.base import check_map, check_pair, check_threshold, full_precision, local_mean
from fuzzyseg.losses.fpl.options import FPLOptions, Rule, Variant, WeightKind, check_choice
from fuzzyseg.losses.kernels.custom_op import pseudo_label
from fuzzyseg.ops.mix import Mixed

Reduction = Literal["mean", "none"]


class FuzzyKeywords(TypedDict, total=False):
    """Keyword arguments of `fuzzy_positive_loss` other than return_stats, for type checkers."""

    threshold: float | Tensor
    weight: WeightKind
    k_cap: int | None
    rule: Rule
    valid: Tensor | None
    size: Sequence[int] | None
    align_corners: bool
    variant: Variant
    balance: bool
    reduction: Reduction


@overload
def fuzzy_positive_loss(
    student_logits: Tensor,
    teacher_logits: Tensor | Mixed,
    *,
    return_stats: Literal[False] = ...,
    **options: Unpack[FuzzyKeywords],
) -> Tensor: ...


@overload
def fuzzy_positive_loss(
    student_logits: Tensor,
    teacher_logits: Tensor | Mixed,
    *,
    return_stats: Literal[True],
    **options: Unpack[FuzzyKeywords],
) -> tuple[Tensor, dict[str, Tensor]]: ...


def fuzzy_positive_loss(
    student_logits: Tensor,
    teacher_logits: Tensor | Mixed,
    *,
    threshold: float | Tensor = 0.9,
    weight: WeightKind = "concave",
    k_cap: int | None = None,
    rule: Rule = "n-1",
    valid: Tensor | None = None,
    size: Sequence[int] | None = None,
    align_corners: bool = False,
    variant: Variant = "paper",
    balance: bool = False,
    reduction: Reduction = "mean",
    return_stats: bool = False,
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    """Compute the Fuzzy Positive Learning loss: Eq. 7 over the classes of Alg. 1, times the weight of Eq. 11.

    student_logits, teacher_logits: (N,C), (B,C,H,W) or (B,C,D,H,W), C >= 2; the teacher gets no gradient and may be
    `Mixed(a, b, mask)`. threshold, k_cap, rule: see `assign_fuzzy_positives`; weight: see `weight_curve` (A = 50).
    valid: (B,*spatial), bool or non-negative weights. size: spatial size to which both logits are first interpolated,
    using `align_corners`. balance: rescale the loss so that its mean equals that of cross entropy on the pseudo label.

    Returns the mean over this process's pixels, weighted by `valid` (0 if no pixel is valid), or, for reduction "none",
    the map (B,*spatial), which is 0 where `valid` is 0 and is not multiplied by it elsewhere. With return_stats, also
    returns detached statistics over the valid pixels: k_histogram (C-1,), label_histogram (C,), mean_weight,
    mean_confidence, and balance (the factor) if requested. A NaN in the logits, even at an invalid pixel, makes the
    result NaN. Raises ValueError for invalid shapes or options.
    """
    options = FPLOptions(weight, k_cap=k_cap, rule=rule, variant=variant)
    check_choice("reduction", reduction, get_args(Reduction))
    shape = check_pair(student_logits, teacher_logits, size)
    check_threshold(threshold, shape, student_logits.device)
    if valid is not None:
        check_map("valid", valid, shape, student_logits.device)
    # A kernel writes the gradient of the mean before the GradScaler's factor is known, so fp16 would underflow.
    mean = reduction == "mean" and student_logits.dtype != torch.float16
    with full_precision(student_logits.device):
        outputs, stats = pseudo_label(
            student_logits, teacher_logits, options, size=size, valid=valid, threshold=threshold,
            align_corners=align_corners, mean=mean, statistics=return_stats, balance=balance,
        )  # fmt: skip
        loss = local_mean(outputs.loss, valid) if reduction == "mean" and outputs.loss.dim() else outputs.loss
        if balance:
            loss = loss * stats["balance"]
        if reduction == "none" and valid is not None:
            loss = loss * (valid > 0)
    return (loss, stats) if return_stats else loss


class FuzzyPositiveLoss(nn.Module):
    """Module version of `fuzzy_positive_loss` with fixed options; a tensor given as `threshold` becomes a buffer.

    Call it with (student_logits, teacher_logits, valid=None, size=None); `size` overrides the constructor's. Raises
    ValueError for invalid options on construction and for invalid shapes when called.
    """

    threshold: float | Tensor

    def __init__(
        self,
        *,
        threshold: float | Tensor = 0.9,
        weight: WeightKind = "concave",
        k_cap: int | None = None,
        rule: Rule = "n-1",
        size: Sequence[int] | None = None,
        align_corners: bool = False,
        variant: Variant = "paper",
        balance: bool = False,
        reduction: Reduction = "mean",
        return_stats: bool = False,
    ) -> None:
        super().__init__()
        FPLOptions(weight, k_cap=k_cap, rule=rule, variant=variant)
        check_choice("reduction", reduction, get_args(Reduction))
        if isinstance(threshold, Tensor):
            self.register_buffer("threshold", threshold)
        else:
            check_threshold(threshold, (), torch.device("cpu"))
            self.threshold = threshold
        self.size = size
        self.options: dict[str, Any] = {"weight": weight, "k_cap": k_cap, "rule": rule, "align_corners": align_corners}
        self.options |= {"variant": variant, "balance": balance, "reduction": reduction, "return_stats": return_stats}

    def forward(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor | Mixed,
        valid: Tensor | None = None,
        size: Sequence[int] | None = None,
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """Compute `fuzzy_positive_loss` with the module's options."""
        result: Tensor | tuple[Tensor, dict[str, Tensor]] = fuzzy_positive_loss(
            student_logits,
            teacher_logits,
            threshold=self.threshold,
            valid=valid,
            size=self.size if size is None else size,
            **self.options,
        )
        return result

    def extra_repr(self) -> str:
        """Return all options by name."""
        # Reading the value of a buffer could synchronise with a GPU.
        threshold = f"tensor{tuple(self.threshold.shape)}" if isinstance(self.threshold, Tensor) else self.threshold
        shown = {"threshold": threshold, "size": self.size, **self.options}
        return ", ".join(f"{name}={value!r}" for name, value in shown.items())
