"""Masks for AEL's adaptive copy-paste and CutMix: pixels of given classes, and boxes around connected components."""

import torch
from torch import Tensor

from fuzzyseg.ops.sample_rng import uniform


def class_masks(mask: Tensor, classes: Tensor) -> Tensor:
    """Return masks (B,H,W) bool, True where mask (B,H,W) int64 is one of the image's `classes` (B,K).

    G. Ghiasi et al., "Simple copy-paste is a strong data augmentation method for instance segmentation", CVPR 2021.
    """
    return (mask.unsqueeze(1) == classes[:, :, None, None]).any(1)


def component_masks(labels: Tensor, classes: Tensor, seeds: Tensor, *, smallest: float) -> tuple[Tensor, Tensor]:
    """Return masks (B,H,W) bool, True in a connected component's bounding box, and whether one was found (B,).

    The component (8-connected) of classes[i] in labels[i] is sampled uniformly from those larger than the fraction
    `smallest` of the image; if there is none, the mask is empty. labels (B,H,W) and classes (B,): values below 0 or
    above 254 are not classes. seeds: (B,) int64 on the CPU, like the results. Synchronises with a GPU, since components
    are found on the CPU.
    """
    from scipy import ndimage  # slow to import

    height, width = labels.shape[-2:]
    image = labels.clamp(-1, 255).add(1).to(torch.int16).cpu().numpy()
    chosen = uniform(seeds, (), purpose=1).tolist()
    masks = torch.zeros(labels.shape, dtype=torch.bool)
    for mask, values, label, chance in zip(masks, image, classes.tolist(), chosen, strict=True):
        if not 0 <= label < 255:
            continue
        components, count = ndimage.label(values == label + 1, structure=[[1] * 3] * 3)
        areas = torch.bincount(torch.from_numpy(components).flatten(), minlength=count + 1)[1:]
        large = (areas > smallest * height * width).nonzero().flatten().tolist()
        if large:
            mask[ndimage.find_objects(components)[large[int(chance * len(large))]]] = True
    return masks, masks.flatten(1).any(1)
