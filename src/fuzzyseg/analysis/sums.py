"""Base class of statistics that are summed over images."""

from dataclasses import dataclass, fields
from typing import Self


@dataclass(frozen=True)
class Sums:
    """Tensors that are summed over images."""

    def plus(self, other: Self) -> Self:
        """Return the sums over the images of `self` and `other`."""
        return type(self)(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))
