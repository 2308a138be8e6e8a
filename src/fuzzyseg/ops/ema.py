"""EMA teachers; papers differ in how they update buffers (batch-norm statistics).

A. Tarvainen, H. Valpola, "Mean teachers are better role models", NeurIPS 2017.
"""

import copy
from typing import Literal

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

Buffers = Literal["own", "average", "copy"]
"""own: updated by the teacher's forward passes; average: EMA, like the weights; copy: copied from the student."""


def teacher_of(student: nn.Module) -> nn.Module:
    """Return a copy of the student whose parameters require no gradient."""
    return copy.deepcopy(student).requires_grad_(False)


def warm_decay(step: int, decay: float) -> float:
    """Return min(1 - 1 / (step + 1), decay). Until it reaches `decay`, the EMA is the mean of all values so far."""
    return min(1 - 1 / (step + 1), decay)


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, decay: float, *, buffers: Buffers = "own") -> None:
    """Update the teacher's weights to decay * teacher + (1 - decay) * student, and its buffers as selected.

    With `average`, integer buffers (batch counters) are copied. Raises ValueError if the networks' parameter or buffer
    names differ.
    """
    targets, sources = dict(teacher.named_parameters()), dict(student.named_parameters())
    target_buffers, source_buffers = dict(teacher.named_buffers()), dict(student.named_buffers())
    if targets.keys() != sources.keys() or target_buffers.keys() != source_buffers.keys():
        odd = sorted((targets.keys() | target_buffers.keys()) ^ (sources.keys() | source_buffers.keys()))
        raise ValueError(f"teacher and student differ in {', '.join(odd)}")
    values = [sources[name].to(weight.dtype) for name, weight in targets.items()]
    get_ema_multi_avg_fn(decay)(list(targets.values()), values, 0)  # type: ignore[no-untyped-call]
    for name, buffer in target_buffers.items() if buffers != "own" else ():
        if buffers == "average" and buffer.is_floating_point():
            buffer.lerp_(source_buffers[name], 1 - decay)
        else:
            buffer.copy_(source_buffers[name])
