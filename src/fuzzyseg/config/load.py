"""Conversion of YAML files and dotted overrides to a `Config`. Errors name the key and the nearest known key."""

import difflib
import reprlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from fuzzyseg.config.schema import Config
from fuzzyseg.config.short_names import SETTINGS

MAX_CHARACTERS, MAX_DEPTH, MAX_VALUES = 2**18, 100, 100_000
"""Limits of a YAML text: characters, nesting depth of brackets, and values with aliases expanded."""

_shown = reprlib.Repr()
"""Formats values of any size as short strings."""
_shown.maxstring = _shown.maxother = 120
_shown.maxlevel = 3


class ConfigError(ValueError):
    """Raised for an invalid setting; the message names the key, the value found and the value expected."""


def nearest(
    name: str, known: Iterable[str], listed: Iterable[str] | None = None, *, prefix: str = "", more: Iterable[str] = ()
) -> str:
    """Return ' Did you mean X?' or, if no known name is close, a list of the known names.

    listed: names to list instead. prefix: prefix of the suggested name, such as `optim.`. more: names to suggest first.
    """
    names = sorted(known)
    close = [prefix + each for each in difflib.get_close_matches(name[:80], names, n=1, cutoff=0.6)]
    if close := [*more, *close]:
        return f" Did you mean {' or '.join(map(repr, close))}?"
    return f" Available: {', '.join(sorted(listed or names))}."


def check_known(what: str, name: str, known: Iterable[str]) -> None:
    """Raise ConfigError if `name` is not known. what: name of the setting or option."""
    if name not in known:
        raise ConfigError(f"{what}: found {name!r}.{nearest(name, known)}")


def section_of(info: FieldInfo | None) -> type[BaseModel] | None:
    """Return the model of a field if it is a section, else None."""
    kind = None if info is None else info.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _names(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of all settings and sections."""
    for key, info in model.model_fields.items():
        yield prefix + key
        if (below := section_of(info)) is not None:
            yield from _names(below, f"{prefix}{key}.")


def unknown(key: str, known: Iterable[str] | None = None) -> str:
    """Return 'unknown setting KEY' with suggestions: the nearest name, and settings of that name in other sections.

    known: names in the same section. Default: those in `Config`.
    """
    parent, dot, last = key.rpartition(".")
    every = list(_names(Config))
    siblings = [name.rpartition(".")[2] for name in every if name.rpartition(".")[0] == parent]
    more = [name for name in every if name.rpartition(".")[2] == last] if dot or known is None else []
    return f"unknown setting {key[:200]!r}.{nearest(last, known or siblings, prefix=parent + dot, more=more)}"


def describe(error: ValidationError, prefix: str = "", known: Iterable[str] | None = None) -> str:
    """Format a pydantic error, with the key, the value found, the value expected and the nearest known key."""
    lines = []
    for item in error.errors():
        place = tuple(part for part in item["loc"] if "[" not in str(part))  # without the names of union members
        key = ".".join([*([prefix] if prefix else []), *map(str, place)])
        if item["type"] == "extra_forbidden":
            lines.append(unknown(key, known))
        else:
            message = item["msg"].removeprefix("Value error, ")
            if item["type"] in ("model_type", "model_attributes_type"):
                message = f"this is a section; expected its settings, such as {key}.NAME=VALUE or {{NAME: VALUE}}"
            lines.append(f"{key[:200]}: found {_shown.repr(item['input'])}; {message}" if place else message)
    return "\n".join(lines)


def validate(values: Mapping[str, Any]) -> Config:
    """Validate a nested mapping. Raises ConfigError."""
    try:
        return Config.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(describe(error)) from None


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML file with nested settings. Raises a ConfigError that names the file."""
    try:
        with Path(path).open(encoding="utf-8") as file:
            values = parse_yaml(file.read(MAX_CHARACTERS + 1))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror or error}); give the path of a YAML file") from None
    except ValueError as error:
        raise ConfigError(f"{path}: {error}" if isinstance(error, ConfigError) else f"{path}: is not text") from None
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: found {type(values).__name__} at the top; expected sections such as 'train:'")
    return values


class _Loader(yaml.SafeLoader):
    """A YAML loader that rejects duplicate keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = Counter(str(key.value) for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge")
        duplicate = next((key for key, count in keys.items() if count > 1), None)
        if duplicate is not None:
            raise yaml.MarkedYAMLError(None, None, f"the key {duplicate!r} occurs twice", node.start_mark)
        return super().construct_mapping(node, deep)


def parse_yaml(text: str) -> Any:
    """Parse YAML. Raises ConfigError with a one-line message, also for input that would be slow to parse or expand."""
    if len(text) > MAX_CHARACTERS:
        raise ConfigError(f"more than {MAX_CHARACTERS} characters; expected settings")
    depths = accumulate((char in "[{") - (char in "]}") for char in text)
    if max(depths, default=0) > MAX_DEPTH:
        raise ConfigError(f"more than {MAX_DEPTH} nested brackets; expected settings")
    try:
        values = yaml.load(text, _Loader)
        _count(values, MAX_VALUES)
        return values
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = "" if mark is None else f" (line {mark.line + 1}, column {mark.column + 1})"
        raise ConfigError(f"is not valid YAML: {error.problem or error.context}{where}") from None
    except RecursionError:
        raise ConfigError("is not valid YAML: nested too deeply, or an alias contains itself") from None
    except (yaml.YAMLError, ValueError, LookupError, AttributeError) as error:  # the last two: a tag such as !!bool x
        raise ConfigError(f"is not valid YAML: {' '.join(str(error).split())[:200]}") from None


def _count(values: Any, limit: int) -> int:
    """Return `limit` minus the number of values, with aliases expanded. Raises ConfigError if it is negative."""
    parts = [*values, *values.values()] if isinstance(values, dict) else values if isinstance(values, list) else ()
    for part in parts:
        limit = _count(part, limit - 1)
        if limit < 0:
            raise ConfigError(f"more than {MAX_VALUES} values with aliases expanded; expected settings")
    return limit


def parse_override(text: str) -> tuple[list[str], Any]:
    """Parse `train.steps=100` into (["train", "steps"], 100). The value is YAML. Raises ConfigError."""
    key, sign, raw = text.partition("=")
    if not sign or not key.strip():
        raise ConfigError(f"found {_shown.repr(text)}; expected key=value, such as train.ema=0.998")
    try:
        value = parse_yaml(raw) if raw.strip() else None
    except ConfigError:
        value = raw
    if isinstance(value, str):  # YAML 1.1 parses 1e-3 as a string
        with suppress(ValueError):
            value = float(value)
    return key.strip().split("."), value


def merge(base: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` updated recursively with `extra`. Neither is modified."""
    result = dict(base)
    for key, value in extra.items():
        old = result.get(key)
        result[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result


def override(values: Mapping[str, Any], path: list[str], value: Any) -> dict[str, Any]:
    """Return `values` with the setting at `path` replaced."""
    for part in reversed(path):
        value = {part: value}
    return merge(values, value)


def nested(values: Any) -> Any:
    """Convert dotted keys (`loss.threshold: 0.9`) to nested mappings. Both forms may be mixed."""
    if not isinstance(values, Mapping):
        return values
    result: dict[str, Any] = {}
    for key, value in values.items():
        result = override(result, str(key).split("."), nested(value))
    return result


def settings_from(config: Config | Mapping[str, Any] | None, given: Mapping[str, Any]) -> Config:
    """Return the configuration, overridden by keyword arguments: short or dotted names, or sections.

    config: a `Config`, or a mapping of settings, nested or with dotted keys. Raises ConfigError.
    """
    values = config.model_dump() if isinstance(config, Config) else nested(config or {})
    for name, value in given.items():
        if name not in SETTINGS and name.partition(".")[0] not in Config.model_fields:
            raise ConfigError(f"unknown keyword {name!r}.{nearest(name, [*SETTINGS, *Config.model_fields])}")
        key = SETTINGS[name][0] if name in SETTINGS else name
        values = override(values, key.split("."), nested(value))
    return validate(values)


def dump_yaml(config: Config) -> str:
    """Return the configuration as YAML text for `read_yaml`."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
