"""The trainer's average of the predictor, for methods that have no teacher of their own."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel


def average_of(predictor: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of weights and buffers: after the first update it equals the predictor.

    From then on average = d * average + (1 - d) * predictor with d = min(decay, (1 + n) / (10 + n)) after n updates, so
    that the first weights do not outlast a short run. n is the buffer `n_averaged`. Counters are copied.
    """

    @torch.no_grad()
    def move(averages: Any, values: Any, count: Any) -> None:
        if averages[0].is_floating_point():
            n = int(count)
            torch._foreach_lerp_(averages, values, 1.0 - min(decay, (1 + n) / (10 + n)))
        else:
            torch._foreach_copy_(averages, values)

    return AveragedModel(predictor, multi_avg_fn=move, use_buffers=True)
