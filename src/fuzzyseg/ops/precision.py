"""How exactly numbers are computed: without autocast, and without TF32 where small differences decide."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch.backends.cuda import matmul


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """A context without autocast: a loss is computed in the precision of its inputs, fp32 at least."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


@contextmanager
def small_differences(device: torch.device) -> Iterator[None]:
    """A context without autocast and without TF32, whose ten bits would round a small perturbation away."""
    cudnn: Any = torch.backends.cudnn
    product: Any = matmul
    try:
        held = cudnn.allow_tf32, product.allow_tf32
    except RuntimeError:  # set through the API of torch 2.9 and newer, beside which the older one must not be used
        newer = cudnn.conv.fp32_precision, product.fp32_precision
        try:
            cudnn.conv.fp32_precision = product.fp32_precision = "ieee"
            with full_precision(device):
                yield
        finally:
            cudnn.conv.fp32_precision, product.fp32_precision = newer
        return
    try:
        cudnn.allow_tf32 = product.allow_tf32 = False
        with full_precision(device):
            yield
    finally:
        cudnn.allow_tf32, product.allow_tf32 = held
