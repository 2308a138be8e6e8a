"""DPT of segmentation_models_pytorch (smp) for any patch size and any patch grid.

R. Ranftl, A. Bochkovskiy, V. Koltun, "Vision transformers for dense prediction", ICCV 2021. The decoder resizes the
four feature levels to 4, 2, 1 and 1/2 times the grid of 16-pixel patches and sums them from coarse to fine.

smp (0.5, 0.6) computes these factors from the patch size and truncates them to integers, so that with patches of 14
(DINOv2) the sizes of the levels do not match and the decoder fails. It also doubles each level, so that grids with an
odd number of patches (518 pixels, DINOv2's native size) fail. Here, patch sizes that are not a power of two use the
factors of the nearest power, as DINOv2's published decoders do, and each level is resized to the size of the next. For
even grids of patches of 8, 16 or 32, the results equal smp's.
"""

import math
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F


class GridDecoder(nn.Module):
    """DPT decoder for any patch grid, with the modules and names of smp's decoder."""

    def __init__(self, decoder: Any, strides: list[int]) -> None:
        """decoder: smp's decoder, whose modules are reused. strides: each level's stride in pixels."""
        super().__init__()
        for name, child in decoder.named_children():
            self.add_module(name, child)
        blocks: Any = self.reassemble_blocks
        for level, (block, stride) in enumerate(zip(blocks, strides, strict=True)):
            if nearest_power(stride) != stride:
                block.upsample = _resampling(block.project_to_out_channel.out_channels, stride, level)

    def forward(self, features: list[Tensor], prefix_tokens: list[Tensor | None]) -> Tensor:
        """Fuse the encoder's maps and prefix tokens into (B,D,h,w), at twice the resolution of the finest level."""
        levels = []
        parts: Any = self  # smp's modules are untyped
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
    """Return the power of two whose ratio to a patch size is nearest to 1: 14 -> 16."""
    return int(2 ** round(math.log2(stride)))


def _resampling(channels: int, stride: int, level: int) -> nn.Module:
    """Return a module that resizes a level with patches of `stride` pixels to 4, 2, 1 or 1/2 times the grid."""
    factor = nearest_power(stride) / 2 ** (level + 2)
    if factor == 1:
        return nn.Identity()
    resampling: nn.Module = (
        nn.ConvTranspose2d(channels, channels, int(factor), stride=int(factor))
        if factor > 1
        else nn.Conv2d(channels, channels, 3, stride=int(1 / factor), padding=1)
    )
    if isinstance(resampling, nn.Conv2d):  # smp's decoder initialisation
        nn.init.kaiming_uniform_(resampling.weight, mode="fan_in", nonlinearity="relu")
        nn.init.zeros_(resampling.bias)  # type: ignore[arg-type]
    return resampling


def fit_to_grid(model: Any) -> None:
    """Replace a DPT's decoder with `GridDecoder`, and adapt the head's upsampling factor to the image size."""
    strides = list(model.encoder.output_strides)
    model.decoder = GridDecoder(model.decoder, strides)
    model.segmentation_head.upsampling_factor *= strides[0] / nearest_power(strides[0])


def loads_elsewhere(model: Any) -> bool:
    """Return whether smp alone can load a DPT's weights, i.e. whether the patch size is a power of two."""
    return all(nearest_power(stride) == stride for stride in model.encoder.output_strides)


def only_size(model: Any) -> tuple[int, int] | None:
    """Return the only image size (H, W) that the encoder accepts, or None if it accepts any."""
    embedding = getattr(model.encoder.model, "patch_embed", None)
    size = getattr(embedding, "img_size", None)
    if size is None or not getattr(embedding, "strict_img_size", False):
        return None
    return int(size[0]), int(size[1])
