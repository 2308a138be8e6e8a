"""Segmentation network in three stages (encode, decode, classify), built on segmentation_models_pytorch."""

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from fuzzyseg.networks.dpt import fit_to_grid, loads_elsewhere, only_size

if TYPE_CHECKING:
    from segmentation_models_pytorch.base import SegmentationModel


class Segmenter(nn.Module):
    """A segmentation_models_pytorch model whose logits are at the decoder's stride.

    `forward` is encode, decode, classify, without upsampling or activation: `resize_logits(segmenter(x), x.shape[-2:])`
    equals the output of the wrapped model `smp` in evaluation mode.

    A custom network can be any `nn.Module` (docs/own-network.md).
    """

    def __init__(self, model: "SegmentationModel") -> None:
        """Wrap the model; a DPT's decoder is replaced with one that works on any patch grid (`networks/dpt.py`).

        Raises ValueError for a model with an auxiliary classification head.
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
        """The encoder (backbone)."""
        return self.smp.encoder  # type: ignore[no-any-return]

    @property
    def decoder(self) -> nn.Module:
        """The decoder, which fuses the encoder's feature maps into one."""
        return self.smp.decoder  # type: ignore[no-any-return]

    @property
    def head(self) -> nn.Module:
        """The segmentation head without upsampling."""
        head = self.smp.segmentation_head
        return head.head if self._is_dpt else head[0]  # type: ignore[no-any-return]

    def encode(self, image: Tensor) -> Any:
        """Return the encoder's features for the decoder: a list of (B,D_i,h_i,w_i); for DPT also the prefix tokens.

        image (B,Cin,H,W), normalised. Raises ValueError if H or W is not a multiple of `divisor`, or if the encoder
        accepts only one image size and the image has a different one.
        """
        height, width = image.shape[-2:]
        divisor = self.divisor
        if height % divisor or width % divisor:
            fits = "x".join(str(-(-side // divisor) * divisor) for side in (height, width))
            raise ValueError(
                f"{type(self.smp).__name__} needs images whose height and width are multiples of {divisor}, found "
                f"{height}x{width}; the next size that fits is {fits}"
            )
        size = only_size(self.smp) if self._is_dpt else None
        if size not in (None, (height, width)):
            raise ValueError(
                f"the encoder accepts only images of {size[0]}x{size[1]}, found {height}x{width}; train on crops of "
                "one size and set network.img_size=[HEIGHT,WIDTH] to it, or choose an encoder that accepts any size"
            )
        return self.encoder(image)

    def decode(self, features: Any) -> Tensor:
        """Decode the result of `encode` into features (B,D,h,w), D = `decoder_channels`."""
        if isinstance(features, tuple):  # DPT: (features, prefix tokens)
            return self.decoder(*features)  # type: ignore[no-any-return]
        return self.decoder(features)  # type: ignore[no-any-return]

    def classify(self, decoded: Tensor) -> Tensor:
        """Return logits (B,C,h,w) of decoder features (B,D,h,w)."""
        return self.head(decoded)  # type: ignore[no-any-return]

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (B,C,h,w) at the decoder's stride for image (B,Cin,H,W). Raises ValueError as `encode` does."""
        return self.classify(self.decode(self.encode(image)))

    @property
    def encoder_channels(self) -> tuple[int, ...]:
        """Channel counts of the encoder's feature maps, from fine to coarse; the first map is the image itself."""
        return tuple(self.smp.encoder.out_channels)

    @property
    def decoder_channels(self) -> int:
        """Number of channels of the decoder's features."""
        return next(m.in_channels for m in self.head.modules() if isinstance(m, nn.Conv2d))

    @property
    def classes(self) -> int:
        """Number of classes, C."""
        return [m.out_channels for m in self.head.modules() if isinstance(m, nn.Conv2d)][-1]

    @property
    def stride(self) -> float:
        """Image pixels per position of the logits; 1.75 for DPT with patches of 14."""
        head = self.smp.segmentation_head
        factor = head.upsampling_factor if self._is_dpt else getattr(head[1], "scale_factor", 1)
        return float(factor)

    @property
    def loads_elsewhere(self) -> bool:
        """Whether segmentation_models_pytorch alone can load the weights of `smp`. False for DPT with patches of 14."""
        return not self._is_dpt or loads_elsewhere(self.smp)

    @property
    def divisor(self) -> int:
        """Number that must divide the image height and width."""
        return int(self.smp.encoder.output_stride) if self.smp.requires_divisible_input_shape else 1
