"""Frozen modules, adversarial directions, and the precision that small perturbations need."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.backends.cuda import matmul

from fuzzyseg.ops.resize import full_precision


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """A context in which the modules' parameters are constants; gradients still flow through to their inputs."""
    held = [p for module in modules for p in module.parameters() if p.requires_grad]
    for p in held:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in held:
            p.requires_grad_(True)


@contextmanager
def small_differences(device: torch.device) -> Iterator[None]:
    """A context without autocast and TF32, whose 10-bit mantissa would round a small perturbation away."""
    cudnn: Any = torch.backends.cudnn
    product: Any = matmul
    try:
        held = cudnn.allow_tf32, product.allow_tf32
    except RuntimeError:  # set by the API of torch 2.9 and newer, which must not be mixed with the older one
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


def unit(values: Tensor) -> Tensor:
    """Each sample divided by its L2 norm over all its axes; a sample of zeros stays zero. values (B,...)."""
    # Divided by the largest first: gradients of 1e-20 have squares that fp32 does not hold.
    axes = tuple(range(1, values.dim()))
    largest = values.abs().amax(axes, keepdim=True)
    scaled = values / torch.where(largest > 0, largest, 1)
    norm = scaled.square().sum(axes, keepdim=True).sqrt()
    return scaled / torch.where(norm > 0, norm, 1)


def adversarial_direction(
    divergence: Callable[[Tensor], Tensor], noise: Tensor, *, probe: float, power: int = 1
) -> Tensor:
    """The direction, of L2 norm 1 per sample, in which `divergence` grows fastest: power iteration on its Hessian.

    T. Miyato et al., "Virtual adversarial training", TPAMI 2018, Eq. 9-12. divergence(r) gives, for an offset r of the
    shape of `noise` (B,...), values that are summed; it must be smallest at r = 0 and independent between samples.
    noise: start of the iteration. probe: L2 norm, per sample, of the offset at which the gradient is taken, about 0.01
    to 1 for images: the divergence is flat at 0, and with less the gradient is lost to fp32 rounding. Computed without
    autocast and TF32. No parameter's `.grad` changes, and the result has no gradient. A sample whose divergence does
    not change has direction 0.
    """
    with small_differences(noise.device), torch.enable_grad():
        direction = unit(noise.detach().float() if noise.dtype in (torch.float16, torch.bfloat16) else noise.detach())
        for _ in range(power):
            offset = (probe * direction).requires_grad_()
            (gradient,) = torch.autograd.grad(divergence(offset).sum(), offset)
            direction = unit(gradient)
    return direction.detach()


def difference_norm(image: Tensor) -> Tensor:
    """L2 norm (B,) of each image's central differences (step 2) down and across, over all channels. image (B,D,H,W).

    The scale of what varies in an image: French et al. (BMVC 2020) let half of it be the radius of a perturbation.
    """
    down, across = image[:, :, 2:] - image[:, :, :-2], image[..., 2:] - image[..., :-2]
    return (down.square().sum((1, 2, 3)) + across.square().sum((1, 2, 3))).sqrt()
