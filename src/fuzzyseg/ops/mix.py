"""CutMix: box masks, image pasting and `Mixed` logits.

Boxes follow French et al., "Semi-supervised semantic segmentation needs strong, varied perturbations" (BMVC 2020), or
Yang et al., "Revisiting Weak-to-Strong Consistency in Semi-Supervised Semantic Segmentation" (CVPR 2023).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Mixed:
    """Logits for a mix of two images: `b` where `mask` is True, otherwise `a`.

    a, b (B,C,h,w); mask (B,H,W) bool at image size. Mixing logits instead of labels works with every pixel loss.
    """

    a: Tensor
    b: Tensor
    mask: Tensor


def paste(a: Tensor, b: Tensor, mask: Tensor) -> Tensor:
    """Return `b` where mask is True, otherwise `a`. a, b (B,*,H,W) or (B,H,W); mask (B,H,W) bool."""
    return torch.where(mask.unsqueeze(1) if a.dim() == 4 else mask, b, a)


def box_masks(
    seeds: Tensor,
    size: tuple[int, int],
    *,
    boxes: int = 3,
    area: tuple[float, float] = (0.25, 0.5),
    probability: float = 1.0,
) -> Tensor:
    """Generate box masks (B,H,W) bool, True inside the boxes, from each sample's seed.

    As in the generator of French et al., each box is sampled independently: it covers a fraction of the image drawn
    uniformly from `area`, with a random aspect ratio; both sides are then multiplied by sqrt(1 / boxes). Overlaps are
    combined by XOR. probability: chance that a sample gets any box; otherwise its mask is all False. seeds: (B,) int64
    on the CPU, like the masks.
    """
    height, width = size
    factor = math.sqrt(1 / boxes)
    masks = torch.zeros((len(seeds), height, width), dtype=torch.bool)
    for mask, seed in zip(masks, seeds.tolist(), strict=True):
        generator = torch.Generator().manual_seed(seed)
        for _ in range(boxes):
            share, aspect, y, x = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
            share = area[0] + share * (area[1] - area[0])
            tall = math.exp(aspect * math.log(share))  # both sides are at most 1
            h, w = round(tall * factor * height), round(share / tall * factor * width)
            top, left = round(y * (height - h)), round(x * (width - w))
            mask[top : top + h, left : left + w] ^= True
        if probability < 1:  # sampled last, so that the boxes do not depend on it
            mask &= torch.rand((), generator=generator) < probability
    return masks


def rectangle_masks(
    seeds: Tensor,
    size: tuple[int, int],
    *,
    views: int = 1,
    probability: float = 0.5,
    area: tuple[float, float] = (0.02, 0.4),
    ratio: tuple[float, float] = (0.3, 1 / 0.3),
) -> tuple[Tensor, ...]:
    """Generate rectangle masks (B,H,W) bool, one per view, True inside at most one rectangle per sample.

    As in the generator of Yang et al., a sample gets a rectangle with `probability`. It covers a fraction of the image
    drawn uniformly from `area`; the ratio of its height to its width, each relative to the image's, is drawn uniformly
    from `ratio`. Shape and position are resampled until it fits inside. Masks depend only on the sample's seed and
    differ between views. seeds: (B,) int64 on the CPU, like the masks.
    """
    height, width = size
    masks = torch.zeros((views, len(seeds), height, width), dtype=torch.bool)
    for number, seed in enumerate(seeds.tolist()):
        generator = torch.Generator().manual_seed(seed)
        for mask in masks[:, number]:
            chance, share = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
            if chance >= probability:
                continue
            share = area[0] + share * (area[1] - area[0])
            while True:
                shape, y, x = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
                shape = ratio[0] + shape * (ratio[1] - ratio[0])
                h, w = int(math.sqrt(share * shape) * height), int(math.sqrt(share / shape) * width)
                top, left = int(y * height), int(x * width)
                if top + h <= height and left + w <= width:
                    break
            mask[top : top + h, left : left + w] = True
    return masks.unbind(0)
