"""Loading of YAML files and dotted overrides into a `Config`; errors name the key and the nearest known one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from fuzzyseg.config.schema import Config


class ConfigError(ValueError):
    """An invalid setting; the message names the key, the value found and the value expected."""


def nearest(name: str, known: Iterable[str], listed: Iterable[str] | None = None, *, prefix: str = "") -> str:
    """' Did you mean X?' or, if no name is close, the known ones. listed: names to list instead.

    prefix: of the name in the message, such as `optim.`.
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f" Did you mean {prefix + close[0]!r}?" if close else f" Known: {', '.join(sorted(listed or names))}."


def section_of(info: FieldInfo | None) -> type[BaseModel] | None:
    """The model of a field that is a section, else None."""
    kind = None if info is None else info.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _fields_at(path: tuple[str | int, ...]) -> Iterable[str]:
    model: type[BaseModel] | None = Config
    for part in path:
        model = None if model is None else section_of(model.model_fields.get(str(part)))
    return [] if model is None else model.model_fields


def describe(error: ValidationError, prefix: str = "", known: Iterable[str] | None = None) -> str:
    """Message of a pydantic error: key, value found, value expected, nearest known key."""
    lines = []
    for item in error.errors():
        place = tuple(item["loc"])
        key = ".".join([*([prefix] if prefix else []), *map(str, place)])
        if item["type"] == "extra_forbidden":
            names = known if known is not None else _fields_at(place[:-1])
            within = [f"{section}.{key}" for section in _fields_at(()) if key in _fields_at((section,))]
            if within and known is None and len(place) == 1:
                lines.append(f"unknown setting {key!r}. Did you mean {' or '.join(map(repr, within))}?")
            else:
                parent = key[: -len(str(place[-1]))]
                lines.append(f"unknown setting {key!r}.{nearest(str(place[-1]), names, prefix=parent)}")
        else:
            lines.append(f"{key}: found {item['input']!r}; {item['msg'].removeprefix('Value error, ')}")
    return "\n".join(lines)


def validate(values: Mapping[str, Any]) -> Config:
    """Validate a nested mapping. Raises ConfigError."""
    try:
        return Config.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(describe(error)) from None


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML file with nested settings. Raises ConfigError naming the file."""
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror or error}); give the path of a YAML file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not valid YAML: {error}") from None
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: found {type(values).__name__} at the top; expected sections such as 'train:'")
    return values


def parse_override(text: str) -> tuple[list[str], Any]:
    """`train.steps=100` -> (["train", "steps"], 100); the value is read as YAML. Raises ConfigError."""
    key, sign, raw = text.partition("=")
    if not sign or not key.strip():
        raise ConfigError(f"found {text!r}; expected key=value, such as train.ema=0.998")
    try:
        value = yaml.safe_load(raw) if raw.strip() else None
    except yaml.YAMLError:
        value = raw
    if isinstance(value, str):  # YAML 1.1 reads 1e-3 as text
        with suppress(ValueError):
            value = float(value)
    return key.strip().split("."), value


def merge(base: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """`base` updated recursively with `extra`; neither is modified."""
    result = dict(base)
    for key, value in extra.items():
        old = result.get(key)
        result[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result


def override(values: Mapping[str, Any], path: list[str], value: Any) -> dict[str, Any]:
    """`values` with the setting at `path` replaced."""
    for part in reversed(path):
        value = {part: value}
    return merge(values, value)


def dump_yaml(config: Config) -> str:
    """The configuration as YAML, from which `read_yaml` restores it."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
