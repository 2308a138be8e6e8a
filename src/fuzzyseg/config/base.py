"""Base class of sections; parsing of sizes."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

PAPER: dict[str, Any] = {"source": "paper"}
"""`json_schema_extra` of a default that is the paper's; "authors' code" and "ours" are other sources."""


class Section(BaseModel):
    """A group of settings, each described by the text below it; unknown names are errors."""

    model_config = ConfigDict(
        extra="forbid",
        validate_assignment=True,
        validate_default=True,
        protected_namespaces=(),
        use_attribute_docstrings=True,
    )


class OpenSection(Section, extra="allow"):
    """A group of settings in which other names are options, which something else validates."""

    @property
    def options(self) -> dict[str, Any]:
        """The settings of other names."""
        return dict(self.model_extra or {})


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


SizeSetting = Annotated[Size, BeforeValidator(parse_size)]
OptionalSize = Annotated[Size | None, BeforeValidator(parse_size)]


def _parse_list(value: Any) -> Any:
    """`a,b` -> [a, b]; other values are unchanged."""
    return [part for part in value.split(",") if part] if isinstance(value, str) else value


Texts = Annotated[list[str] | None, BeforeValidator(_parse_list)]
Numbers = Annotated[list[int] | None, BeforeValidator(_parse_list)]
"""Lists that may be written `a,b`."""
