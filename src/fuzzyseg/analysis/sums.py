"""Base class for statistics that are summed over images."""

from dataclasses import dataclass, fields
from typing import Self


@dataclass(frozen=True)
class Sums:
    """Base class of statistics whose fields are tensors, summed over images."""

    def plus(self, other: Self) -> Self:
        """Return the field-wise sums of `self` and `other`."""
        return type(self)(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))
