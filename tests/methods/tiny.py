"""A network of three layers and batches for it: enough for every property that a method has."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fuzzyseg.data.views import Batch


class TinyNetwork(nn.Module):
    """Encoder and head; logits at half the image's size."""

    def __init__(self, classes: int = 5, channels: int = 3, norm: str = "batch", dropout: float = 0.0) -> None:
        super().__init__()
        norms: dict[str, Callable[[], nn.Module]] = {
            "batch": lambda: nn.BatchNorm2d(8),
            "group": lambda: nn.GroupNorm(2, 8),
        }
        self.encoder = nn.Sequential(nn.Conv2d(channels, 8, 3, 2, 1), norms[norm](), nn.ReLU())
        self.drop = nn.Dropout2d(dropout)
        self.head = nn.Conv2d(8, classes, 3, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.drop(self.encoder(image)))


def make_batch(
    count: int = 3, size: tuple[int, int] = (12, 14), classes: int = 5, *, masks: bool, seed: int = 0
) -> Batch:
    """Random images; about a tenth of the pixels is padding, and void where there are masks."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(count, 3, *size, generator=generator)
    valid = torch.rand(count, *size, generator=generator) > 0.1
    mask = torch.randint(0, classes, (count, *size), generator=generator)
    return Batch(
        image=image * valid.unsqueeze(1),
        valid=valid,
        mask=torch.where(valid, mask, 255) if masks else None,
        index=torch.arange(count),
        name=[f"image{i}" for i in range(count)],
        seed=torch.randint(0, 2**62, (count,), generator=generator),
        drawn_for=torch.full((count,), -1),
    )
