"""EMA teachers; papers differ in how they treat buffers (batch-norm statistics).

A. Tarvainen, H. Valpola, "Mean teachers are better role models", NeurIPS 2017.
"""

import copy
from typing import Literal

import torch
from torch import nn

Buffers = Literal["own", "average", "copy"]
"""own: updated by the teacher's forwards in training mode; average: like the weights; copy: copied from the student."""


def teacher_of(student: nn.Module) -> nn.Module:
    """Return a copy of the student whose parameters require no gradient."""
    return copy.deepcopy(student).requires_grad_(False)


def warm_decay(step: int, decay: float) -> float:
    """Return min(1 - 1 / (step + 1), decay): 0 at step 0, then the decay of a plain average of all weights so far."""
    return min(1 - 1 / (step + 1), decay)


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, decay: float, *, buffers: Buffers = "own") -> None:
    """Update the teacher's weights to decay * teacher + (1 - decay) * student, and its buffers as selected.

    With `average`, integer buffers (batch counters) are copied. Raises ValueError if parameter or buffer names differ.
    """
    teacher_weights, student_weights = dict(teacher.named_parameters()), dict(student.named_parameters())
    teacher_buffers, student_buffers = dict(teacher.named_buffers()), dict(student.named_buffers())
    if teacher_weights.keys() != student_weights.keys() or teacher_buffers.keys() != student_buffers.keys():
        odd = sorted(
            (teacher_weights.keys() | teacher_buffers.keys()) ^ (student_weights.keys() | student_buffers.keys())
        )
        raise ValueError(f"teacher and student differ in {', '.join(odd)}")
    for name, weight in teacher_weights.items():
        weight.lerp_(student_weights[name].to(weight.dtype), 1 - decay)
    for name, buffer in teacher_buffers.items() if buffers != "own" else ():
        if buffers == "average" and buffer.is_floating_point():
            buffer.lerp_(student_buffers[name], 1 - decay)
        else:
            buffer.copy_(student_buffers[name])
