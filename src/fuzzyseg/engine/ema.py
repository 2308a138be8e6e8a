"""The trainer's average of the predictor, for methods that have no teacher of their own."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel


def average_of(predictor: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of weights and buffers: after the first update it equals the predictor.

    From then on average = decay * average + (1 - decay) * predictor. Counters, which have no mean, are copied.
    """

    @torch.no_grad()
    def move(averages: Any, values: Any, count: Any) -> None:
        if averages[0].is_floating_point():
            torch._foreach_lerp_(averages, values, 1.0 - decay)
        else:
            torch._foreach_copy_(averages, values)

    return AveragedModel(predictor, multi_avg_fn=move, use_buffers=True)
