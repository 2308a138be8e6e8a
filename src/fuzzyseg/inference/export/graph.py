"""The exported module: image values in, logits and labels out."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fuzzyseg.data.sample import Size
from fuzzyseg.inference.predictor import Predictor
from fuzzyseg.ops.module_mode import evaluating

INPUT, OUTPUTS = "image", ("logits", "labels")


class Deployed(nn.Module):
    """A network with the pre- and postprocessing of `Predictor`, for one whole image and one view.

    Input: image values (B,Cin,H,W), uint8 for a model trained on 8-bit images, otherwise float32: as stored in the file
    if the card's `levels` give a range, or in [0, 1]. Outputs: logits (B,C,H,W) float32, divided by the temperature so
    that their softmax gives calibrated probabilities, and labels (B,H,W) uint8.
    """

    low: Tensor
    span: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, predictor: Predictor, size: Size | None) -> None:
        """Copy what is needed from `predictor`. size: fixed (H, W) of the input, or None for any size."""
        super().__init__()
        card = predictor.card
        self.network, self.size, self.temperature = predictor.network, size, card.temperature
        self.divisor = int(getattr(predictor.network, "divisor", 1))
        self.upsamples = predictor.stride() != 1
        self.dtype = torch.uint8 if card.levels is None else torch.float32
        low, high = [0.0], [255.0 if card.levels is None else 1.0]
        if card.levels is not None and card.levels.low is not None and card.levels.high is not None:
            low, high = list(card.levels.low), list(card.levels.high)
        span = [top - bottom if top > bottom else 1.0 for bottom, top in zip(low, high, strict=True)]
        for name, values in (("low", low), ("span", span), ("mean", card.mean), ("std", card.std)):
            buffer = torch.tensor(values, dtype=torch.float32).expand(card.channels).clone()
            self.register_buffer(name, buffer.view(1, -1, 1, 1))
        self.to("cpu").eval()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits and labels of image values."""
        height, width = image.shape[-2:]
        units = (image.float() - self.low) / self.span
        if self.dtype != torch.uint8:
            units = torch.where(units.isfinite(), units, 0.0)  # as in `Levels.units`
        inputs = (units - self.mean) / self.std
        # no -(-side // divisor): ONNX's division of negative numbers rounds the other way
        padded = [(side + self.divisor - 1) // self.divisor * self.divisor for side in (height, width)]
        if self.divisor > 1:  # replicates the border; `pad` and slices would fix a symbolic size
            rows, columns = (
                torch.arange(to).clamp(max=side - 1) for to, side in zip(padded, (height, width), strict=True)
            )
            inputs = inputs.index_select(2, rows).index_select(3, columns)
        logits = self.network(inputs).float()
        if self.upsamples:
            logits = F.interpolate(logits, size=padded, mode="bilinear", align_corners=True)
        if self.divisor > 1:
            logits = logits.index_select(2, torch.arange(height)).index_select(3, torch.arange(width))
        return logits / self.temperature, logits.argmax(1).to(torch.uint8)

    def example(self) -> Tensor:
        """Return an input for tracing, with two images, since a batch size of one would be traced as a constant."""
        side = 4 * self.divisor if self.divisor > 1 else 96
        size = self.size or (side, side + max(32, self.divisor))
        values = torch.randint(0, 256, (2, self.mean.shape[1], *size), generator=torch.Generator().manual_seed(0))
        return values.to(self.dtype)

    def program(self) -> Any:
        """Return the result of `torch.export.export`, with dynamic batch, height and width unless the size is fixed.

        Raises ValueError if the network cannot be exported this way.
        """
        any_size = torch.export.Dim.DYNAMIC
        dynamic = {0: any_size} | ({} if self.size is not None else {2: any_size, 3: any_size})
        try:
            with torch.no_grad(), evaluating(self):
                return torch.export.export(self, (self.example(),), dynamic_shapes=(dynamic,), strict=False)
        except Exception as error:  # of many types, none of them public
            reason = " ".join(str(error).split())[:300]
            advice = "give --static HxW, the size at which it is used" if self.size is None else "it cannot be exported"
            raise ValueError(f"torch.export cannot trace the network ({reason}); {advice}") from error


def min_size(program: Any) -> list[int]:
    """Return the minimum height and width of a program's input, as determined by tracing."""
    image = next(node.meta["val"] for node in program.graph.nodes if node.name == INPUT)
    ranges = {str(symbol): int(bounds.lower) for symbol, bounds in program.range_constraints.items()}
    return [ranges.get(str(side), 1) if not isinstance(side, int) else side for side in image.shape[-2:]]
