"""Base class of sections; parsing of sizes."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A group of settings; unknown names are errors."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, validate_default=True, protected_namespaces=())


Size = tuple[int, int]


def parse_size(value: Any) -> Any:
    """Parse `HxW`, one number for a square, or a pair; None stays None. Raises ValueError."""
    if isinstance(value, int) and not isinstance(value, bool):
        return (value, value)
    if isinstance(value, str):
        parts = value.lower().split("x")
        if len(parts) not in (1, 2) or not all(part.strip().isdigit() for part in parts):
            raise ValueError("a size is HEIGHTxWIDTH, such as 360x480")
        numbers = [int(part) for part in parts]
        value = (numbers[0], numbers[-1])
    if isinstance(value, list | tuple) and any(isinstance(v, int) and v < 1 for v in value):
        raise ValueError("height and width must be at least 1")
    return value
