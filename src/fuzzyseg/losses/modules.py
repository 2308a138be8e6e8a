"""The module that methods hold: a pseudo-label loss with its options and threshold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fuzzyseg.losses.arguments import at_size, check_threshold
from fuzzyseg.losses.fpl.adaptive_threshold import Adaptive, adaptive_map
from fuzzyseg.losses.fpl.options import FPLKeywords, FPLOptions
from fuzzyseg.losses.fpl.threshold import Conformal, Policy, Schedule
from fuzzyseg.losses.pseudo_label import PixelLoss
from fuzzyseg.losses.reduction import histogram, local_mean
from fuzzyseg.ops.mix import Mixed

PixelFunction = Callable[..., PixelLoss]
"""A pseudo-label loss as a pure function, with the signature that `fuzzyseg.losses.pseudo_label` gives."""


class PixelLossModule(nn.Module):
    """What a method holds: a pseudo-label loss, its options, and the threshold T as a buffer that a policy sets.

    threshold: a number in (0, 1], or a policy: `Schedule` sets the buffer in every call, by the progress; `Calibrated`
    leaves it to whoever holds the labelled pixels, and so does `Conformal`, with a second buffer, `temperature`, by
    which the teacher's logits are divided; `Adaptive` does without and chooses among its candidates for each pixel.
    With a policy the statistics of the loss also hold `threshold`, its mean over the valid pixels, for `Conformal`
    `temperature`, and for `Adaptive` `threshold_histogram`, the share of the pixels that took each candidate.
    """

    threshold: Tensor
    temperature: Tensor

    def __init__(self, function: PixelFunction, options: Mapping[str, Any], threshold: float | Policy = 0.9) -> None:
        super().__init__()
        self.policy = threshold if isinstance(threshold, tuple) else None
        if isinstance(threshold, tuple):
            threshold.check()
            first = threshold.candidates[0] if isinstance(threshold, Adaptive) else threshold.start
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
        """The loss maps at `size`. progress, (finished steps, total), is what a schedule sets the threshold by."""
        if isinstance(self.policy, Schedule):
            self.threshold.fill_(self.policy.at(*progress))
        teacher = self.tempered(teacher)
        threshold = self.thresholds(teacher, size)
        found = self.function(
            student_logits, teacher, size=size, valid=valid, threshold=threshold, maps=maps, **self.options
        )
        if isinstance(self.policy, Adaptive):
            found.stats["threshold"] = local_mean(threshold, valid)
            place = torch.zeros_like(threshold, dtype=torch.long)
            for candidate in self.policy.candidates[:-1]:
                place += threshold > candidate
            found.stats["threshold_histogram"] = histogram(place, valid, len(self.policy.candidates))
        elif self.policy is not None:
            found.stats["threshold"] = threshold if threshold.dim() == 0 else local_mean(threshold, valid)
        if isinstance(self.policy, Conformal):
            found.stats["temperature"] = self.temperature.clone()
        return found

    def tempered(self, teacher: Tensor | Mixed) -> Tensor | Mixed:
        """The teacher's logits over the temperature, detached; the same object where no policy fits a temperature."""
        if not isinstance(self.policy, Conformal):
            return teacher
        if isinstance(teacher, Mixed):
            return Mixed(teacher.a.detach() / self.temperature, teacher.b.detach() / self.temperature, teacher.mask)
        return teacher.detach() / self.temperature

    def thresholds(self, teacher: Tensor | Mixed, size: Sequence[int]) -> Tensor:
        """T for these logits (B,C,h,w) as it stands now: 0-dim, or one for each pixel of `size`, (B,H,W)."""
        if isinstance(self.policy, Conformal) and self.policy.classes is not None:
            return self.threshold[labels(teacher, size)]
        if not isinstance(self.policy, Adaptive):
            return self.threshold.clone()  # the next call may set it before this one's backward pass
        given = {name: value for name, value in self.options.items() if name in FPLKeywords.__annotations__}
        return adaptive_map(teacher, size, self.policy, FPLOptions(**given))

    def extra_repr(self) -> str:
        """The function, its options and its policy."""
        name = getattr(self.function, "__name__", repr(self.function))
        policy = [] if self.policy is None else [repr(self.policy)]
        return ", ".join([name, *(f"{key}={value!r}" for key, value in self.options.items()), *policy])


def labels(teacher: Tensor | Mixed, size: Sequence[int]) -> Tensor:
    """The most probable class at each pixel of `size`, (B,H,W) int64, of logits (B,C,h,w).

    An image at a time, so that no batch of logits is held at full size.
    """
    if isinstance(teacher, Mixed):
        return torch.where(teacher.mask, labels(teacher.b, size), labels(teacher.a, size))
    with torch.no_grad():
        return torch.cat([at_size(image, size).argmax(1) for image in torch.split(teacher, 1)])
