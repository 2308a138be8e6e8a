"""Base classes for configuration sections, and parsers for sizes and lists."""

import math
import os
from typing import Annotated, Any, Self, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)

PAPER: dict[str, Any] = {"source": "paper"}
"""`json_schema_extra` for a default from the paper; other sources are "authors' code" and "ours"."""


def _holds(annotation: Any, kind: type) -> bool:
    """Return whether an annotation is, or contains, `kind` or Any."""
    return annotation in (kind, Any) or any(_holds(each, kind) for each in get_args(annotation))


class Section(BaseModel):
    """A group of settings, each documented by the string below it. Unknown names raise an error."""

    model_config = ConfigDict(
        extra="forbid",
        validate_assignment=True,
        validate_default=True,
        protected_namespaces=(),
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )

    @field_validator("*", mode="before")
    @classmethod
    def _plain(cls, value: Any, info: ValidationInfo) -> Any:
        """Convert paths to strings. Raises ValueError for empty or binary text, and for bools in non-bool fields."""
        field = cls.model_fields[info.field_name or ""]
        unusual = value != field.default or isinstance(value, bool)  # True equals a default of 1
        values = value if isinstance(value, list | tuple) else [value] if unusual else []
        if any(isinstance(each, str) and not each.strip() for each in values):
            raise ValueError("found an empty string; give a value or omit the setting")
        if any(isinstance(each, bytes) or (isinstance(each, str) and "\0" in each) for each in values):
            raise ValueError("expected text without null characters")
        if any(isinstance(each, bool) for each in values) and not _holds(field.annotation, bool):
            raise ValueError("expected a value other than true and false")
        return os.fspath(value) if isinstance(value, os.PathLike) else value


class OpenSection(Section, extra="allow"):
    """A group of settings that also accepts undeclared names, as options that are validated elsewhere."""

    @property
    def options(self) -> dict[str, Any]:
        """The settings with undeclared names."""
        return dict(self.model_extra or {})

    @model_validator(mode="after")
    def _finite(self) -> Self:
        for name, value in self.options.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{name}: found {value}, expected a finite number")
        return self


Size = tuple[int, int]


def parse_size(value: Any) -> Any:
    """Parse `HxW`, a single number (square) or a pair. Values of other types are returned unchanged.

    Raises ValueError for any other text, and for sides below 1.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        value = (value, value)
    if isinstance(value, str):
        parts = value.lower().split("x")
        if len(parts) not in (1, 2) or not all(part.strip().isdigit() for part in parts):
            raise ValueError("expected HEIGHTxWIDTH, such as 360x480")
        numbers = [int(part) for part in parts]
        value = (numbers[0], numbers[-1])
    if isinstance(value, list | tuple) and any(isinstance(v, int) and v < 1 for v in value):
        raise ValueError("height and width must be at least 1")
    return value


SizeSetting = Annotated[Size, BeforeValidator(parse_size)]
OptionalSize = Annotated[Size | None, BeforeValidator(parse_size)]


def _parse_list(value: Any) -> Any:
    """Split `a,b` into [a, b]. Other values are returned unchanged. Raises ValueError for an empty part."""
    parts = value.split(",") if isinstance(value, str) else value
    if isinstance(parts, list) and any(isinstance(part, str) and not part.strip() for part in parts):
        raise ValueError("found an empty name in the list")
    return parts


Texts = Annotated[list[str] | None, BeforeValidator(_parse_list)]
Numbers = Annotated[list[PositiveInt] | None, BeforeValidator(_parse_list)]
"""Lists that may also be written as `a,b`."""
