"""Losses as modules: what a method or anybody's loop holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fuzzyseg.losses.fuzzy import fuzzy_positive_loss
from fuzzyseg.losses.inputs import check_threshold
from fuzzyseg.losses.options import Reduction, Rule, Variant, WeightKind, check_options
from fuzzyseg.losses.pixel import PixelLoss
from fuzzyseg.ops.mix import Mixed


class FuzzyPositiveLoss(nn.Module):
    """`fuzzy_positive_loss` with its options set once; a tensor given as `threshold` becomes a buffer.

    Called with (student_logits, teacher_logits, valid=None, size=None); a `size` in the call goes before the one set
    here. Raises ValueError for wrong options here, for wrong shapes in the call.
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
        check_options(weight=weight, k_cap=k_cap, rule=rule, variant=variant, reduction=reduction)
        if isinstance(threshold, Tensor):
            self.register_buffer("threshold", threshold)
        else:
            check_threshold(threshold, (), torch.device("cpu"))
            self.threshold = threshold
        self.size = size
        self.options: dict[str, Any] = {
            "weight": weight,
            "k_cap": k_cap,
            "rule": rule,
            "align_corners": align_corners,
            "variant": variant,
            "balance": balance,
            "reduction": reduction,
            "return_stats": return_stats,
        }

    def forward(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor | Mixed,
        valid: Tensor | None = None,
        size: Sequence[int] | None = None,
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """See `fuzzy_positive_loss`."""
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
        """All options by name."""
        # A buffer is named by its shape: its value may lie on a GPU.
        threshold = f"tensor{tuple(self.threshold.shape)}" if isinstance(self.threshold, Tensor) else self.threshold
        shown = {"threshold": threshold, "size": self.size, **self.options}
        return ", ".join(f"{name}={value!r}" for name, value in shown.items())


PixelFunction = Callable[..., PixelLoss]
"""A pseudo-label loss as a pure function, with the signature that `fuzzyseg.losses.pixel` gives."""


class PixelLossModule(nn.Module):
    """What a method holds: a pseudo-label loss, its options, and the threshold as a buffer that a policy may set."""

    threshold: Tensor

    def __init__(self, function: PixelFunction, options: Mapping[str, Any], threshold: float = 0.9) -> None:
        super().__init__()
        check_threshold(threshold, (), torch.device("cpu"))
        self.function = function
        self.options = dict(options)
        self.register_buffer("threshold", torch.tensor(float(threshold)))

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
        """The loss maps at `size`. progress, (finished steps, total), is what a policy would set the threshold by."""
        return self.function(
            student_logits, teacher, size=size, valid=valid, threshold=self.threshold, maps=maps, **self.options
        )

    def extra_repr(self) -> str:
        """The function and its options."""
        name = getattr(self.function, "__name__", repr(self.function))
        return ", ".join([name, *(f"{key}={value!r}" for key, value in self.options.items())])
