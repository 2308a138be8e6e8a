"""DPT of segmentation_models_pytorch for every patch size and every grid of patches.

R. Ranftl, A. Bochkovskiy, V. Koltun, "Vision transformers for dense prediction", ICCV 2021. Its decoder brings the four
levels of features to 4, 2, 1 and 1/2 times the grid of patches of 16 pixels and adds them up from coarse to fine.

segmentation_models_pytorch (0.5, 0.6) computes these factors from the patch size and cuts them to whole numbers, so
that with patches of 14 (DINOv2) the levels do not meet and its decoder fails on every image; and it doubles each level,
so that grids of an odd number of patches (518 pixels, DINOv2's own size) do not meet either. Here patches of another
size than a power of two get the factors of the nearest power, as in the decoders that DINOv2 is published with, and
each level is brought to the size of the next. On even grids of patches of 8, 16 or 32 nothing changes.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F


class GridDecoder(nn.Module):
    """The parts of a DPT decoder, under their names, that meet on any grid of patches."""

    def __init__(self, decoder: Any, strides: list[int]) -> None:
        """decoder: of segmentation_models_pytorch, whose parts move here. strides: pixels per feature of each level."""
        super().__init__()
        for name, child in decoder.named_children():
            self.add_module(name, child)
        blocks: Any = self.reassemble_blocks
        for level, (block, stride) in enumerate(zip(blocks, strides, strict=True)):
            if nearest_power(stride) != stride:
                block.upsample = _resampling(block.project_to_out_channel.out_channels, stride, level)

    def forward(self, features: list[Tensor], prefix_tokens: list[Tensor | None]) -> Tensor:
        """The decoder's features (B,D,h,w), twice as fine as the finest level, of the encoder's maps and tokens."""
        levels = []
        parts: Any = self  # modules of segmentation_models_pytorch
        for feature, tokens, project, reassemble in zip(
            features, prefix_tokens, parts.projection_blocks, parts.reassemble_blocks, strict=True
        ):
            levels.append(reassemble(project(feature, tokens)))
        fused: Tensor | None = None
        for number, block in enumerate(parts.fusion_blocks, start=1):
            level = block.residual_conv_block1(levels[-number])
            level = block.residual_conv_block2(level if fused is None else level + fused)
            size = levels[-number - 1].shape[-2:] if number < len(levels) else [2 * side for side in level.shape[-2:]]
            fused = block.project(F.interpolate(level, size=list(size), mode="bilinear", align_corners=True))
        assert fused is not None
        return fused


def nearest_power(stride: int) -> int:
    """The power of two that is nearest to a patch size, by their ratio: 14 -> 16."""
    return int(2 ** round(math.log2(stride)))


def _resampling(channels: int, stride: int, level: int) -> nn.Module:
    """What brings a level of patches of `stride` pixels to 4, 2, 1, 1/2 times the grid (of patches of about 16)."""
    factor = nearest_power(stride) / 2 ** (level + 2)
    if factor == 1:
        return nn.Identity()
    resampling: nn.Module = (
        nn.ConvTranspose2d(channels, channels, int(factor), stride=int(factor))
        if factor > 1
        else nn.Conv2d(channels, channels, 3, stride=int(1 / factor), padding=1)
    )
    from segmentation_models_pytorch.base.initialization import initialize_decoder

    initialize_decoder(resampling)
    return resampling


def fit_to_grid(model: Any) -> None:
    """Gives a DPT the decoder that meets on any grid, and logits that come out at the size of the image."""
    strides = list(model.encoder.output_strides)
    model.decoder = GridDecoder(model.decoder, strides)
    model.segmentation_head.upsampling_factor *= strides[0] / nearest_power(strides[0])


def loads_elsewhere(model: Any) -> bool:
    """Whether segmentation_models_pytorch alone can load a DPT's weights: where the patch size is a power of two."""
    return all(nearest_power(stride) == stride for stride in model.encoder.output_strides)


def only_size(model: Any) -> tuple[int, int] | None:
    """The one size of image, (H, W), that the encoder takes; None where it takes any."""
    embedding = getattr(model.encoder.model, "patch_embed", None)
    size = getattr(embedding, "img_size", None)
    if size is None or not getattr(embedding, "strict_img_size", False):
        return None
    return int(size[0]), int(size[1])
