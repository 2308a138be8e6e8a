"""Tiny network and random batches for testing methods."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fuzzyseg.data.views import Batch, CropPair, View, Weak, WeakStrong


class Block(nn.Sequential):
    """A part of the encoder that FSDP shards separately, like a transformer block, which it knows by `attn`."""

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__(*modules)
        self.attn = nn.Identity()


class TinyNetwork(nn.Module):
    """Network with the interface of Segmenter: two-stage encoder, decoder and head. Logits have half the image size."""

    encoder_channels = (3, 8, 8)
    decoder_channels = 8
    stride = 2
    divisor = 1

    def __init__(self, classes: int = 5, channels: int = 3, norm: str = "batch", dropout: float = 0.0) -> None:
        super().__init__()
        norms: dict[str, Callable[[], nn.Module]] = {
            "batch": lambda: nn.BatchNorm2d(8),
            "group": lambda: nn.GroupNorm(2, 8),
        }
        self.classes = classes
        self.encoder = nn.ModuleDict(
            {
                "fine": Block(nn.Conv2d(channels, 8, 3, 2, 1), norms[norm](), nn.ReLU()),
                "coarse": Block(nn.Conv2d(8, 8, 3, 2, 1), norms[norm](), nn.ReLU()),
            }
        )
        self.decoder = nn.Sequential(nn.Conv2d(16, 8, 1), norms[norm](), nn.ReLU())
        self.drop = nn.Dropout2d(dropout)
        self.head = nn.Conv2d(8, classes, 3, 1, 1)

    def encode(self, image: Tensor) -> list[Tensor]:
        fine = self.encoder["fine"](image)
        return [image, fine, self.encoder["coarse"](fine)]

    def decode(self, features: list[Tensor]) -> Tensor:
        _, fine, coarse = features
        up = nn.functional.interpolate(coarse, size=fine.shape[-2:], mode="nearest")
        return self.decoder(torch.cat([fine, up], 1))

    def classify(self, decoded: Tensor) -> Tensor:
        return self.head(self.drop(decoded))

    def forward(self, image: Tensor) -> Tensor:
        return self.classify(self.decode(self.encode(image)))


def make_batch(
    count: int = 3,
    size: tuple[int, int] = (12, 14),
    classes: int = 5,
    *,
    masks: bool,
    seed: int = 0,
    view: View | None = None,
) -> Batch:
    """Return a batch of random images. About 10% of the pixels are padding; with masks, about 5% of the rest are void.

    view: WeakStrong adds strong views (image plus noise). CropPair adds a second crop, offset by 2 pixels down and to
    the right; the two crops are flipped independently.
    """
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(count, 3, *size, generator=generator)
    valid = torch.rand(count, *size, generator=generator) > 0.1
    mask = torch.randint(0, classes, (count, *size), generator=generator)
    void = torch.rand(count, *size, generator=torch.Generator().manual_seed(seed + 7919)) < 0.05
    batch = Batch(
        image=image * valid.unsqueeze(1),
        valid=valid,
        mask=torch.where(valid & ~void, mask, 255) if masks else None,
        index=torch.arange(count),
        name=[f"image{i}" for i in range(count)],
        seed=torch.randint(0, 2**62, (count,), generator=generator),
        drawn_for=torch.full((count,), -1),
        scores=torch.randn(count, classes, *size, generator=torch.Generator().manual_seed(seed + 104729)),
    )
    view = view or Weak()
    if isinstance(view, WeakStrong):
        batch.strong = tuple(
            batch.image + 0.3 * torch.randn(image.shape, generator=generator) * valid.unsqueeze(1)
            for _ in range(view.strong)
        )
    if isinstance(view, CropPair):
        _add_pair(batch, generator)
    return batch


def _add_pair(batch: Batch, generator: torch.Generator) -> None:
    count, (height, width) = len(batch.image), batch.size
    wide = torch.randn(count, 3, height + 2, width + 2, generator=generator)
    seen = torch.rand(count, height + 2, width + 2, generator=generator) > 0.1
    wide = wide * seen.unsqueeze(1)
    flips = torch.rand(count, 2, generator=generator) > 0.5
    crops = []
    for crop, (top, left) in enumerate(((0, 0), (2, 2))):
        image, valid = (t[..., top : top + height, left : left + width] for t in (wide, seen))
        flip = flips[:, crop].view(-1, 1, 1)
        crops.append((torch.where(flip.unsqueeze(1), image.flip(-1), image), torch.where(flip, valid.flip(-1), valid)))
    (batch.image, batch.valid), batch.pair = crops
    windows = torch.tensor([[0, 0, height, width], [2, 2, height + 2, width + 2]])
    batch.boxes = windows.expand(count, 2, 4).clone()
    batch.flips = flips
