"""`dataset.yaml`, the label metadata declared by the user. All keys are optional."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fuzzyseg.data.sample import MAX_CLASSES, DataError
from fuzzyseg.data.text import decoded, problems, repeated

FILE = "dataset.yaml"

LOWEST = -(2**15)
"""Smallest valid void value; TIFF and NumPy files may contain negative values."""

_Channel = Annotated[int, Field(ge=0, le=255)]
_Colour = tuple[_Channel, _Channel, _Channel]
_Value = Annotated[int, Field(ge=LOWEST, le=65535)]
_HIDDEN = {"colours_of": "colours", "ignore_also": "ignore_index"}
"""Maps internal fields to keys in the file."""


class Description(BaseModel):
    """Contents of `dataset.yaml`; unknown keys raise an error.

    colours: a list with one colour per class, or one or more colours per class name (stored as `colours_of`). values:
    one or more mask values per class name. ignore_index: one or more void values (all but the first become
    `ignore_also`). merge: new class name -> names of the classes to merge. ignore: names of classes that become void.
    encoding: index, colour or binary; needed only if it cannot be detected. licence: licence of the data, for the model
    card.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    classes: list[str] | None = Field(default=None, min_length=2, max_length=MAX_CLASSES)
    colours: list[_Colour] | None = Field(default=None)
    ignore_index: int | None = Field(default=None, ge=LOWEST, le=65535)
    images: str | None = Field(default=None, min_length=1)
    masks: str | None = Field(default=None, min_length=1)
    lists: dict[Literal["train", "unlabelled", "val", "test"], str | list[str]] | None = Field(None, min_length=1)
    encoding: Literal["index", "colour", "binary"] | None = None
    values: dict[str, list[_Value]] | None = Field(default=None, min_length=1)
    reduce_zero_label: bool = False
    ignore_colours: list[_Colour] | None = None
    merge: dict[str, list[str]] | None = None
    ignore: list[str] | None = None
    colours_of: dict[str, list[_Colour]] | None = Field(default=None, min_length=1)
    ignore_also: list[_Value] | None = None
    licence: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _normalise(cls, content: Any) -> Any:
        """Convert keys that can be written in two ways to a single form."""
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
    def _consistent(self) -> Description:
        if self.classes is not None and len(set(self.classes)) < len(self.classes):
            raise ValueError(f"two classes have the same name in {self.classes}")
        if self.classes is not None and self.colours is not None and len(self.classes) != len(self.colours):
            raise ValueError(f"{len(self.classes)} classes but {len(self.colours)} colours; expected one per class")
        for key, named in (("colours", self.colours_of), ("values", self.values)):
            if named is not None and self.classes is not None and set(named) != set(self.classes):
                odd = sorted(set(named) ^ set(self.classes))
                raise ValueError(f"{key} and classes differ: {', '.join(odd)} is in only one of them")
        kinds = [self.values is not None, self.reduce_zero_label, self.has_colours and self.encoding == "colour"]
        if sum(kinds) > 1 or (self.values is not None and self.encoding not in (None, "index")):
            raise ValueError("found two of values, reduce_zero_label and encoding (colour or binary); expected one")
        return self

    @property
    def has_colours(self) -> bool:
        """Whether class colours are declared."""
        return self.colours is not None or self.colours_of is not None

    @property
    def names(self) -> list[str] | None:
        """The declared class names, before `merge` and `ignore`."""
        return self.classes or list(self.colours_of or self.values or ()) or None


def _is_colour(value: Any) -> bool:
    return isinstance(value, list) and not any(isinstance(part, list) for part in value)


class _Loader(yaml.SafeLoader):
    """YAML loader that rejects duplicate keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        if duplicates := repeated([str(key.value) for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]):
            raise yaml.MarkedYAMLError(None, None, f"the key {duplicates[0]!r} occurs twice", node.start_mark)
        return super().construct_mapping(node, deep)


MAX_ENTRIES = 100_000
"""Maximum number of entries after expanding YAML aliases, because nested aliases grow exponentially."""


def _entries(value: Any, known: dict[int, float]) -> float:
    """Return the number of entries of a value with aliases expanded; infinity if the value contains itself."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        known[id(value)] = math.inf  # if visited again while being counted, it contains itself
        parts = [*value, *value.values()] if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_entries(part, known) for part in parts)
    return known[id(value)]


def read_description(root: Path, path: Path | None = None) -> Description:
    """Read the `dataset.yaml` of a dataset, or the file `path` instead.

    Returns an empty description if there is no `dataset.yaml`. Raises a DataError that names the file and key.
    """
    root = root.parent if root.is_file() else root  # a manifest
    given, path = path is not None, path or root / FILE
    if not path.is_file() and not given:
        if (root / "dataset.yml").is_file():
            raise DataError(f"{root / 'dataset.yml'}: is ignored; rename it to {FILE}")
        return Description()
    try:
        values = yaml.load(decoded(path.read_bytes()), _Loader)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError) as error:  # such as !!bool x
        raise DataError(f"{path}: is not valid YAML: {error}") from None
    if _entries(values, {}) > MAX_ENTRIES:
        raise DataError(f"{path}: has more than {MAX_ENTRIES} entries with its aliases (*) expanded; shorten it")
    if values is not None and not isinstance(values, dict):
        raise DataError(f"{path}: found {type(values).__name__} at the top; expected keys such as 'classes: [a, b]'")
    try:
        return Description.model_validate(values or {})
    except ValidationError as error:
        keys = [key for key in Description.model_fields if key not in _HIDDEN]
        raise DataError(f"{path}: " + "\n".join(problems(error, keys, _HIDDEN))) from None
