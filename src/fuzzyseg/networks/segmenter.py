"""A segmentation network in three stages over segmentation_models_pytorch: encode, decode, classify."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from fuzzyseg.networks.dpt import fit_to_grid, loads_elsewhere, only_size

if TYPE_CHECKING:
    from segmentation_models_pytorch.base import SegmentationModel


class Segmenter(nn.Module):
    """A segmentation_models_pytorch model whose logits come at the decoder's stride.

    `forward` is encode, decode, classify; nothing is up-sampled and no activation applied, so that
    `resize_logits(segmenter(x), x.shape[-2:])` is what the wrapped model `smp` gives for x in evaluation mode.

    A network of your own need not be a Segmenter. Any `nn.Module` will do that has an attribute `encoder` (the part
    that gets the backbone's learning rate) and whose `forward` takes (B,Cin,H,W) and returns logits (B,C,h,w) at any
    stride. It may tell `divisor` (sizes must be a multiple of it; 1 if it does not say). For a method that puts heads
    on features it must also tell `encoder_channels` and `decoder_channels` and offer `encode`, `decode`, `classify`.
    """

    def __init__(self, model: SegmentationModel) -> None:
        """Wraps model. One with an auxiliary classification head or an activation is a ValueError.

        A DPT gets a decoder that takes any grid of patches, under the same names (`networks/dpt.py`).
        """
        from segmentation_models_pytorch import DPT

        super().__init__()
        if model.classification_head is not None:
            raise ValueError("the model has a classification head (aux_params), which a Segmenter cannot use")
        self._is_dpt = isinstance(model, DPT)
        if self._is_dpt:
            fit_to_grid(model)
        self.smp = model

    @property
    def encoder(self) -> nn.Module:
        """The backbone."""
        return self.smp.encoder  # type: ignore[no-any-return]

    @property
    def decoder(self) -> nn.Module:
        """What makes one feature map of the backbone's."""
        return self.smp.decoder  # type: ignore[no-any-return]

    @property
    def head(self) -> nn.Module:
        """What makes logits of the decoder's features, without the up-sampling."""
        head = self.smp.segmentation_head
        return head.head if self._is_dpt else head[0]  # type: ignore[no-any-return]

    def encode(self, image: Tensor) -> Any:
        """Features of all stages, as the decoder takes them: a list of (B,D_i,h_i,w_i), and prefix tokens with DPT.

        image (B,Cin,H,W), normalised. H and W must be multiples of `divisor`; else ValueError.
        """
        height, width = image.shape[-2:]
        divisor = self.divisor
        if height % divisor or width % divisor:
            fits = "x".join(str(-(-side // divisor) * divisor) for side in (height, width))
            raise ValueError(
                f"{type(self.smp).__name__} takes images whose height and width are multiples of {divisor}, found "
                f"{height}x{width}; the next size that fits is {fits}"
            )
        size = only_size(self.smp) if self._is_dpt else None
        if size not in (None, (height, width)):
            raise ValueError(
                f"the encoder takes images of {size[0]}x{size[1]} alone, found {height}x{width}; train on crops of one "
                "size and set network.img_size=[HEIGHT,WIDTH] to it, or choose an encoder that takes any size"
            )
        return self.encoder(image)

    def decode(self, features: Any) -> Tensor:
        """The decoder's features (B,D,h,w), D = `decoder_channels`, of what `encode` gave."""
        if isinstance(features, tuple):  # DPT: (features, prefix tokens)
            return self.decoder(*features)  # type: ignore[no-any-return]
        return self.decoder(features)  # type: ignore[no-any-return]

    def classify(self, decoded: Tensor) -> Tensor:
        """Logits (B,C,h,w) of decoded (B,D,h,w)."""
        return self.head(decoded)  # type: ignore[no-any-return]

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B,C,h,w) at the decoder's stride of image (B,Cin,H,W). ValueError for a size that does not fit."""
        return self.classify(self.decode(self.encode(image)))

    @property
    def encoder_channels(self) -> tuple[int, ...]:
        """Channels of each of the encoder's feature maps, from fine to coarse; the first is the image itself."""
        return tuple(self.smp.encoder.out_channels)

    @property
    def decoder_channels(self) -> int:
        """Channels of the decoder's features."""
        return next(m.in_channels for m in self.head.modules() if isinstance(m, nn.Conv2d))

    @property
    def classes(self) -> int:
        """Number of classes, C."""
        return [m.out_channels for m in self.head.modules() if isinstance(m, nn.Conv2d)][-1]

    @property
    def stride(self) -> float:
        """Pixels of the image per cell of the logits; no whole number for DPT with patches of 14."""
        head = self.smp.segmentation_head
        factor = head.upsampling_factor if self._is_dpt else getattr(head[1], "scale_factor", 1)
        return float(factor)

    @property
    def loads_elsewhere(self) -> bool:
        """Whether segmentation_models_pytorch alone can load the weights of `smp`: not a DPT with patches of 14."""
        return not self._is_dpt or loads_elsewhere(self.smp)

    @property
    def divisor(self) -> int:
        """What height and width must be a multiple of."""
        return int(self.smp.encoder.output_stride) if self.smp.requires_divisible_input_shape else 1
