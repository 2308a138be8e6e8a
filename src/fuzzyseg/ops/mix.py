"""Mixing two images: box masks, paste, and `Mixed` logits.

Boxes follow French et al., "Semi-supervised semantic segmentation needs strong, varied perturbations" (BMVC 2020), or
Yang et al., "Revisiting Weak-to-Strong Consistency in Semi-Supervised Semantic Segmentation" (CVPR 2023).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fuzzyseg.ops.sample_rng import uniform


@dataclass(frozen=True)
class Mixed:
    """Logits of two images that are read as one: `b` where `mask` is True, else `a`.

    a, b (B,C,h,w); mask (B,H,W) bool at image size. Mixing logits, never labels, lets every pixel loss fit.
    """

    a: Tensor
    b: Tensor
    mask: Tensor


def paste(a: Tensor, b: Tensor, mask: Tensor) -> Tensor:
    """`b` where mask is True, else `a`. a, b (B,*,H,W) or (B,H,W); mask (B,H,W) bool."""
    return torch.where(mask.unsqueeze(1) if a.dim() == 4 else mask, b, a)


def box_masks(
    seeds: Tensor,
    size: tuple[int, int],
    *,
    boxes: int = 3,
    area: tuple[float, float] = (0.25, 0.5),
    probability: float = 1.0,
) -> Tensor:
    """A (B,H,W) bool mask per sample, True inside its boxes, drawn from the sample's own seed alone.

    Each of the `boxes` is drawn as if it were the only one, with a uniform share `area` of the image and a random
    aspect; then both its sides are multiplied by sqrt(1 / boxes), so that none is longer than that share of the
    image's side. Where two overlap they cancel. All as in the generator of French et al. probability: of a sample to
    have boxes at all; else its mask is False throughout.
    seeds: (B,) int64, on the CPU, as the masks are.
    """
    height, width = size
    factor = math.sqrt(1 / boxes)
    masks = torch.zeros((len(seeds), height, width), dtype=torch.bool)
    for mask, seed in zip(masks, seeds.tolist(), strict=True):
        generator = torch.Generator().manual_seed(seed)
        for _ in range(boxes):
            share, aspect, y, x = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
            share = area[0] + share * (area[1] - area[0])
            tall = math.exp(aspect * math.log(share))  # both sides stay within the image
            h, w = round(tall * factor * height), round(share / tall * factor * width)
            top, left = round(y * (height - h)), round(x * (width - w))
            mask[top : top + h, left : left + w] ^= True
        if probability < 1:  # drawn last: the boxes are the same whatever it is
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
    """For each of the `views` a (B,H,W) bool mask, True inside one rectangle per sample, or nowhere.

    With `probability` there is a rectangle; it covers a uniform share `area` of the image, its height over its width,
    each as a share of the image's, is uniform in `ratio`, and shape and place are drawn until it lies inside, as in
    the generator of Yang et al. (on their square crops the two readings of the ratio agree). A sample's own seed alone
    decides, and draws apart for each view. seeds: (B,) int64, on the CPU, as the masks are.
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


def class_masks(mask: Tensor, classes: Tensor) -> Tensor:
    """(B,H,W) bool, True where a pixel's class is one of its image's `classes` (B,K). mask (B,H,W) int64.

    G. Ghiasi et al., "Simple copy-paste is a strong data augmentation method for instance segmentation", CVPR 2021.
    """
    return (mask.unsqueeze(1) == classes[:, :, None, None]).any(1)


def component_masks(labels: Tensor, classes: Tensor, seeds: Tensor, *, smallest: float) -> tuple[Tensor, Tensor]:
    """(B,H,W) bool, True inside the bounding box of a part of the image that is all of one class; and (B,) bool, found.

    Of the connected parts (touching at a corner counts) of classes[i] in labels[i], those of more than `smallest`, a
    share of the image, are equally likely. Where there is none the mask is empty and found is False. labels (B,H,W) and
    classes (B,), below 0 or above 254 for none; seeds (B,) int64, on the CPU, as the results are.

    The labels are copied to the CPU, for which a GPU has to be waited for once: parts are found by following them, of
    which there is no form without a number of passes that depends on the image.
    """
    from scipy import ndimage  # slow to import, and needed here alone

    height, width = labels.shape[-2:]
    image = labels.clamp(-1, 255).add(1).to(torch.int16).cpu().numpy()
    chosen = uniform(seeds, (), purpose=1).tolist()
    masks = torch.zeros(labels.shape, dtype=torch.bool)
    for mask, values, wanted, chance in zip(masks, image, classes.tolist(), chosen, strict=True):
        if not 0 <= wanted < 255:
            continue
        parts, count = ndimage.label(values == wanted + 1, structure=[[1] * 3] * 3)
        areas = torch.bincount(torch.from_numpy(parts).flatten(), minlength=count + 1)[1:]
        large = (areas > smallest * height * width).nonzero().flatten().tolist()
        if large:
            mask[ndimage.find_objects(parts)[large[int(chance * len(large))]]] = True
    return masks, masks.flatten(1).any(1)
