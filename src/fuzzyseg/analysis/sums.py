"""Base of the statistics: tensors that add up over images."""

from dataclasses import dataclass, fields
from typing import Self


@dataclass(frozen=True)
class Sums:
    """Tensors that add up over images."""

    def plus(self, other: Self) -> Self:
        """The sums over the images of both."""
        return type(self)(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))
