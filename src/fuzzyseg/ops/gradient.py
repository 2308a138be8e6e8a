"""Adversarial directions, and context managers that freeze modules or preserve small differences."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.backends.cuda import matmul

from fuzzyseg.ops.resize import full_precision


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Treat the modules' parameters as constants; gradients still flow to the modules' inputs."""
    trainable = [p for module in modules for p in module.parameters() if p.requires_grad]
    for p in trainable:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in trainable:
            p.requires_grad_(True)


@contextmanager
def small_differences(device: torch.device) -> Iterator[None]:
    """Disable autocast and TF32, whose 10-bit mantissa would lose small perturbations."""
    cudnn: Any = torch.backends.cudnn
    exact: bool | str = False
    modules, name = (cudnn, matmul), "allow_tf32"
    try:
        saved = [getattr(place, name) for place in modules]
    except RuntimeError:  # set with the torch 2.9 API, which must not be mixed with the older one
        modules, name, exact = (cudnn.conv, matmul), "fp32_precision", "ieee"
        saved = [getattr(place, name) for place in modules]
    try:
        for place in modules:
            setattr(place, name, exact)
        with full_precision(device):
            yield
    finally:
        for place, value in zip(modules, saved, strict=True):
            setattr(place, name, value)


def unit(values: Tensor) -> Tensor:
    """Divide each sample (B,...) by its L2 norm over all axes; zeros stay zero."""
    # Divide by the largest value first, since the squares of gradients around 1e-20 underflow in fp32.
    axes = tuple(range(1, values.dim()))
    largest = values.abs().amax(axes, keepdim=True)
    scaled = values / torch.where(largest > 0, largest, 1)
    norm = scaled.square().sum(axes, keepdim=True).sqrt()
    return scaled / torch.where(norm > 0, norm, 1)


def adversarial_direction(
    divergence: Callable[[Tensor], Tensor], noise: Tensor, *, probe: float, power: int = 1
) -> Tensor:
    """Find the direction in which `divergence` grows fastest, by power iteration on its Hessian; L2 norm 1 per sample.

    T. Miyato et al., "Virtual adversarial training", TPAMI 2018, Eq. 9-12. divergence(r) returns values, which are
    summed, for an offset r shaped like `noise` (B,...); it must be smallest at r = 0 and independent across samples.
    noise: initial direction. probe: L2 norm, per sample, of the offset at which the gradient is computed, about 0.01 to
    1 for images: the divergence is flat at 0, and for smaller offsets the gradient is lost in fp32 rounding. Computed
    without autocast and TF32. Changes no parameter's `.grad`; the result has no gradient. It is 0 for a sample whose
    divergence does not change.
    """
    with small_differences(noise.device), torch.enable_grad():
        direction = unit(noise.detach().float() if noise.dtype in (torch.float16, torch.bfloat16) else noise.detach())
        for _ in range(power):
            offset = (probe * direction).requires_grad_()
            (gradient,) = torch.autograd.grad(divergence(offset).sum(), offset)
            direction = unit(gradient)
    return direction.detach()


def difference_norm(image: Tensor) -> Tensor:
    """Return the L2 norm (B,) of vertical and horizontal central differences (step 2) of each image (B,D,H,W).

    French et al. (BMVC 2020) use half of it as the radius of a perturbation.
    """
    down, across = image[:, :, 2:] - image[:, :, :-2], image[..., 2:] - image[..., :-2]
    return (down.square().sum((1, 2, 3)) + across.square().sum((1, 2, 3))).sqrt()
