"""`dataset.yaml`: what the user says about a data set. Every key is optional."""

from __future__ import annotations

import difflib
import math
import reprlib
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fuzzyseg.data.sample import MAX_CLASSES, DataError

FILE = "dataset.yaml"

LOWEST = -(2**15)
"""The lowest value that may be ignored: TIFF and NumPy files may hold negative numbers."""

_Channel = Annotated[int, Field(ge=0, le=255)]
_Colour = tuple[_Channel, _Channel, _Channel]
_Value = Annotated[int, Field(ge=LOWEST, le=65535)]
_HIDDEN = {"colours_of": "colours", "ignore_also": "ignore_index"}
"""Fields that are forms of another key, by which they are spoken of."""


class Description(BaseModel):
    """The content of `dataset.yaml`; an unknown key is an error.

    colours: a list, one a class, or by name, one or several a class (`colours_of` then). values: index masks by name,
    one or several values a class. ignore_index: one value or several (`ignore_also`). merge: names that become one.
    ignore: names that become void. encoding: index, colour or binary, where it cannot be told from the files.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    classes: list[str] | None = Field(default=None, min_length=2, max_length=MAX_CLASSES)
    colours: list[_Colour] | None = Field(default=None)
    ignore_index: int | None = Field(default=None, ge=LOWEST, le=65535)
    images: str | None = Field(default=None, min_length=1)
    masks: str | None = Field(default=None, min_length=1)
    lists: dict[Literal["train", "unlabelled", "val", "test"], str | list[str]] | None = Field(
        default=None, min_length=1
    )
    encoding: Literal["index", "colour", "binary"] | None = None
    values: dict[str, list[_Value]] | None = Field(default=None, min_length=1)
    reduce_zero_label: bool = False
    ignore_colours: list[_Colour] | None = None
    merge: dict[str, list[str]] | None = None
    ignore: list[str] | None = None
    colours_of: dict[str, list[_Colour]] | None = Field(default=None, min_length=1)
    ignore_also: list[_Value] | None = None

    @model_validator(mode="before")
    @classmethod
    def _forms(cls, content: Any) -> Any:
        """One form of what may be written in two."""
        if not isinstance(content, dict):
            return content
        content = dict(content)
        if isinstance(content.get("colours"), dict):
            named = content.pop("colours")
            content["colours_of"] = {name: [c] if _is_colour(c) else c for name, c in named.items()}
        if isinstance(content.get("values"), dict):
            content["values"] = {name: v if isinstance(v, list) else [v] for name, v in content["values"].items()}
        if isinstance(content.get("ignore_index"), list) and content["ignore_index"]:
            content["ignore_index"], *content["ignore_also"] = content["ignore_index"]
        return content

    @model_validator(mode="after")
    def _fits(self) -> Description:
        if self.classes is not None and len(set(self.classes)) < len(self.classes):
            raise ValueError(f"two classes have the same name in {self.classes}")
        if self.classes is not None and self.colours is not None and len(self.classes) != len(self.colours):
            raise ValueError(
                f"{len(self.classes)} classes but {len(self.colours)} colours; expected one colour a class"
            )
        for key, named in (("colours", self.colours_of), ("values", self.values)):
            if named is not None and self.classes is not None and set(named) != set(self.classes):
                odd = sorted(set(named) ^ set(self.classes))
                raise ValueError(f"{key} and classes do not name the same: {', '.join(odd)} is in one of them alone")
        kinds = [self.values is not None, self.reduce_zero_label, self.has_colours and self.encoding == "colour"]
        if sum(kinds) > 1 or (self.values is not None and self.encoding not in (None, "index")):
            raise ValueError("found two of values, reduce_zero_label and encoding: colour or binary; expected one")
        return self

    @property
    def has_colours(self) -> bool:
        """Whether colours of classes are given."""
        return self.colours is not None or self.colours_of is not None

    @property
    def names(self) -> list[str] | None:
        """The names that are given, before `merge` and `ignore`."""
        return self.classes or list(self.colours_of or self.values or ()) or None


def _is_colour(value: Any) -> bool:
    return isinstance(value, list) and not any(isinstance(part, list) for part in value)


def nearest(name: str, known: list[str]) -> str:
    """' Did you mean X?' or, where nothing is close, the known names."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else f" Known: {', '.join(known[:20])}."


MOST = 100_000
"""Entries of a description. Aliases of aliases make any number of a few lines."""


def _entries(value: Any, known: dict[int, float]) -> float:
    """How many entries a value holds, what aliases name counted each time; infinite where it holds itself."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        known[id(value)] = math.inf  # until it is known: found again within itself
        parts = [*value, *value.values()] if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_entries(part, known) for part in parts)
    return known[id(value)]


def read_description(root: Path, path: Path | None = None) -> Description:
    """`dataset.yaml` of a data set, or the file `path` in place of it; an empty description if there is none.

    Raises DataError naming file and key.
    """
    root = root.parent if root.is_file() else root  # a table of images: the file beside it
    given, path = path is not None, path or root / FILE
    if not path.is_file() and not given:
        if (root / "dataset.yml").is_file():
            raise DataError(f"{root / 'dataset.yml'}: is not read; rename it to {FILE}")
        return Description()
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{path}: is not valid YAML: {error}") from None
    if _entries(values, {}) > MOST:
        raise DataError(f"{path}: holds more than {MOST} entries once its aliases (*) are written out; write less")
    if values is not None and not isinstance(values, dict):
        raise DataError(f"{path}: found {type(values).__name__} at the top; expected keys such as 'classes: [a, b]'")
    try:
        return Description.model_validate(values or {})
    except ValidationError as error:
        lines = []
        for item in error.errors():
            key = ".".join(_HIDDEN.get(str(part), str(part)) for part in item["loc"])
            if item["type"] == "extra_forbidden":
                lines.append(
                    f"unknown key {key!r}.{nearest(key, [k for k in Description.model_fields if k not in _HIDDEN])}"
                )
            else:
                found = f"{key}: found {reprlib.repr(item['input'])}; " if key else ""
                lines.append(found + item["msg"].removeprefix("Value error, "))
        raise DataError(f"{path}: " + "\n".join(lines)) from None
