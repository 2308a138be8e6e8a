"""Channel dropout on the features that an encoder passes to its decoder.

`features` is the output of a network's `encode`: a list of maps (B,D_i,h_i,w_i), or, for DPT, a tuple of this list and
a list of each level's prefix tokens, (B,N,D_i) or None. A channel is dropped in the map and in the tokens of its level,
since the decoder reads both. The first map of segmentation_models_pytorch is the image, which no decoder reads.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor


def levels(features: Any) -> list[Tensor]:
    """Return the feature maps (B,D_i,h_i,w_i) in the output of `encode`. Raises ValueError for any other type."""
    maps = features[0] if isinstance(features, tuple) and len(features) == 2 else features
    if not isinstance(maps, list) or not all(isinstance(each, Tensor) and each.dim() == 4 for each in maps):
        raise ValueError(
            f"features: found {type(maps).__name__} from the network's encode, expected a list of maps (B,D,h,w), or a "
            "tuple of such a list and a list of prefix tokens"
        )
    return maps


def scale_channels(features: Any, masks: Sequence[Tensor]) -> Any:
    """Multiply `features` by the mask (B,D_i) of each level; masks may be on any device."""

    def scaled(values: Tensor | None, mask: Tensor) -> Tensor | None:
        if values is None:
            return None
        mask = mask.to(values.device, values.dtype, non_blocking=True)
        return values * (mask[:, :, None, None] if values.dim() == 4 else mask[:, None])

    if isinstance(features, tuple):
        maps, tokens = features
        return (scale_channels(maps, masks), [scaled(t, m) for t, m in zip(tokens, masks, strict=True)])
    return [scaled(f, m) for f, m in zip(features, masks, strict=True)]
