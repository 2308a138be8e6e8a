"""`dataset.yaml`: what the user says about a data set. Every key is optional."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fuzzyseg.data.items import MAX_CLASSES, DataError

FILE = "dataset.yaml"

_Channel = Annotated[int, Field(ge=0, le=255)]


class Description(BaseModel):
    """The content of `dataset.yaml`; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    classes: list[str] | None = Field(default=None, min_length=2, max_length=MAX_CLASSES)
    colours: list[tuple[_Channel, _Channel, _Channel]] | None = Field(default=None)
    ignore_index: int | None = Field(default=None, ge=0, le=65535)
    images: str | None = Field(default=None, min_length=1)
    masks: str | None = Field(default=None, min_length=1)
    lists: dict[Literal["train", "unlabelled", "val", "test"], str | list[str]] | None = Field(
        default=None, min_length=1
    )

    @model_validator(mode="after")
    def _fits(self) -> Description:
        if self.classes is not None and len(set(self.classes)) < len(self.classes):
            raise ValueError(f"two classes have the same name in {self.classes}")
        if self.classes is not None and self.colours is not None and len(self.classes) != len(self.colours):
            raise ValueError(
                f"{len(self.classes)} classes but {len(self.colours)} colours; expected one colour a class"
            )
        return self


def nearest(name: str, known: list[str]) -> str:
    """' Did you mean X?' or, where nothing is close, the known names."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else f" Known: {', '.join(known[:20])}."


def read_description(root: Path) -> Description:
    """`dataset.yaml` of a data set; an empty description if there is none. Raises DataError naming file and key."""
    root = root.parent if root.is_file() else root  # a table of images: the file beside it
    path = root / FILE
    if not path.is_file():
        if (root / "dataset.yml").is_file():
            raise DataError(f"{root / 'dataset.yml'}: is not read; rename it to {FILE}")
        return Description()
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: is not valid YAML: {error}") from None
    if values is not None and not isinstance(values, dict):
        raise DataError(f"{path}: found {type(values).__name__} at the top; expected keys such as 'classes: [a, b]'")
    try:
        return Description.model_validate(values or {})
    except ValidationError as error:
        lines = []
        for item in error.errors():
            key = ".".join(map(str, item["loc"]))
            if item["type"] == "extra_forbidden":
                lines.append(f"unknown key {key!r}.{nearest(key, list(Description.model_fields))}")
            else:
                found = f"{key}: found {item['input']!r}; " if key else ""
                lines.append(found + item["msg"].removeprefix("Value error, "))
        raise DataError(f"{path}: " + "\n".join(lines)) from None
