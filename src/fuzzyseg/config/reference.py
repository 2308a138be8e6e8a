"""Reference of all settings, generated from the models: `fuzzyseg settings` and `docs/settings.md`."""

from __future__ import annotations

import inspect
import json
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from fuzzyseg.config.base import Size
from fuzzyseg.config.load import ConfigError, nearest
from fuzzyseg.config.schema import Config

HOW = (
    "Settings are given in a file, `fuzzyseg train recipe.yaml` (with sections, `data: {cache: disk}`), by an option "
    "of `fuzzyseg train`, if any (`--labelled 46`), or by a dotted name, `data.cache=disk`; later ones in this order "
    "override earlier ones. `fuzzyseg.train` takes the sections as dictionaries. `KEY=null` or `KEY=` sets `null`, if "
    "allowed. Lists are written `[a,b]`, quoted if the shell expands brackets; files, folders and bands also `a,b`. "
    "`HxW` is height x width in pixels, or one number for both. Source: where a default comes from. `fuzzyseg "
    "settings` prints the same as text, `fuzzyseg settings data` one section."
)
"""Introduction of the page."""

_BOUNDS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
_KINDS: dict[Any, tuple[str, str]] = {
    bool: ("true | false", ""),
    int: ("whole number", "whole numbers"),
    float: ("number", "numbers"),
    str: ("text", "texts"),
}
"""Type -> its name for one value, and for a list."""


@dataclass(frozen=True)
class Setting:
    """name: dotted. kind: possible values. default: as written. source: of the default. option: of `fuzzyseg train`."""

    name: str
    kind: str
    default: str
    about: str
    source: str = ""
    option: str = ""

    @property
    def notes(self) -> str:
        """Description and source."""
        return self.about + (f" Source: {self.source}." if self.source else "")


@dataclass(frozen=True)
class Group:
    """The settings of a section. name: dotted; '': settings outside sections. open: other names are allowed."""

    name: str
    about: str
    settings: tuple[Setting, ...]
    open: bool = False


def groups(options: Mapping[str, str] | None = None) -> list[Group]:
    """All settings, by section. options: setting -> option of `fuzzyseg train`."""
    return list(_groups(Config, "", options or {}))


def chosen(name: str, options: Mapping[str, str] | None = None) -> list[Group]:
    """The settings of a section (with sections in it), one setting, or all settings whose last part is `name`.

    Raises ConfigError naming the nearest.
    """
    everything = groups(options)
    known = [each.name for group in everything for each in group.settings]
    meant = [each for each in known if f"{each}.".startswith(f"{name}.")]
    meant = meant or [each for each in known if each.endswith(f".{name}")]
    if name and meant:
        found = [replace(each, settings=tuple(s for s in each.settings if s.name in meant)) for each in everything]
        return [each for each in found if each.settings]
    raise ConfigError(
        f"settings: found {name!r}, which is neither a setting nor a section.{_nearest(name, everything)}"
    )


def _nearest(name: str, everything: Iterable[Group]) -> str:
    """The nearest name, or the known ones; for an open section also its description."""
    sections = {each.name: each for each in everything}
    own = sections.get(name.rpartition(".")[0]) if "." in name else None
    if own is not None and own.open:
        return f" Known: {', '.join(each.name for each in own.settings)}. {own.about}"
    if own is not None:
        return nearest(name, [each.name for each in own.settings])
    names = [each.name for group in sections.values() for each in group.settings]
    tops = {known.partition(".")[0] for known in names}
    return nearest(name, {*names, *sections, *(known.rpartition(".")[2] for known in names)} - {""}, tops)


def _groups(model: type[BaseModel], name: str, options: Mapping[str, str]) -> Iterator[Group]:
    """The group of a model, then those of its sections."""
    fields = {f"{name}.{key}".lstrip("."): info for key, info in model.model_fields.items()}
    inner = {key: section for key, info in fields.items() if (section := _section(info)) is not None}
    settings = [_setting(key, info, options.get(key, "")) for key, info in fields.items() if key not in inner]
    about = " ".join((inspect.getdoc(model) or "").split()) if name else "Settings outside sections."
    yield Group(name, about, tuple(settings), model.model_config.get("extra") == "allow")
    for key, section in inner.items():
        yield from _groups(section, key, options)


def _section(info: FieldInfo) -> type[BaseModel] | None:
    """The model of a field that is a section, else None."""
    kind = info.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _setting(name: str, info: FieldInfo, option: str) -> Setting:
    value = info.get_default(call_default_factory=True)
    about = (info.description or "").replace("None:", "null:")
    kind = _kind(info.annotation, info.metadata)
    return Setting(name, kind, written(value, info.annotation), about, source_of(info), option)


def source_of(info: FieldInfo) -> str:
    """Source of a field's default (paper, authors' code, ours), or '' if none is declared."""
    extra = info.json_schema_extra
    return str(extra.get("source", "")) if isinstance(extra, dict) else ""


def _kind(kind: Any, metadata: Iterable[Any] = ()) -> str:
    """Description of a type's values. metadata: pydantic's, with bounds."""
    origin, inside = get_origin(kind), get_args(kind)
    if kind == Size:
        return "HxW"
    if kind is NoneType:
        return "null"
    if origin is Literal:
        return " | ".join(map(str, inside))
    if origin is Annotated:
        info = FieldInfo.from_annotation(kind)
        if info.title is not None:  # format of a text
            return info.title
        return _kind(info.annotation, [*info.metadata, *metadata])
    if origin in (Union, UnionType):
        return " | ".join(_kind(each, () if each is NoneType else metadata) for each in inside)
    if origin is dict:
        return "mapping"
    if origin is list or (origin is tuple and inside[-1] is Ellipsis):
        return f"list of {_KINDS[inside[0]][1]}"
    if origin is tuple:
        return f"[{', '.join(_kind(each) for each in inside)}]"
    bounds = [
        f"{sign} {getattr(each, key):g}" for each in metadata for key, sign in _BOUNDS.items() if hasattr(each, key)
    ]
    return " ".join([_KINDS[kind][0], " and ".join(bounds)]).strip()


def written(value: Any, kind: Any = None) -> str:
    """A default as written on the command line."""
    if kind == Size and value is not None:
        return "x".join(map(str, value))
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def plain(shown: Iterable[Group], width: int | None = None) -> Iterator[str]:
    """Groups as lines of text: a setting per line or, with a width, its name and its wrapped description."""
    for number, group in enumerate(shown):
        yield from [""] * (number > 0)
        title = f"{group.name}: {group.about}" if group.name else group.about
        yield from [title] if width is None else textwrap.wrap(title, width)
        for each in group.settings:
            about = each.notes + (f" Option: {each.option}." if each.option else "")
            head = f"  {each.name}={each.default}  ({each.kind})"
            if width is None:
                yield f"{head}  {about}"
            else:
                yield from textwrap.wrap(head, width, subsequent_indent="    ")
                yield from textwrap.wrap(about, width, initial_indent=" " * 6, subsequent_indent=" " * 6)


def markdown(shown: Iterable[Group]) -> Iterator[str]:
    """Groups as lines of a Markdown page, one table per group."""
    yield "# Settings"
    yield ""
    yield "<!-- written by `fuzzyseg settings --markdown`: change the descriptions in src/fuzzyseg/config instead -->"
    yield ""
    yield from textwrap.wrap(HOW, 120, break_on_hyphens=False)
    for group in shown:
        yield from ["", f"## {group.name or 'At the top'}", "", group.about, ""]
        yield from ["| setting | values | default | description |", "| --- | --- | --- | --- |"]
        for each in group.settings:
            option = f" Option: `{each.option}`." if each.option else ""
            cells = [f"`{each.name}`", f"`{each.kind}`", f"`{each.default}`", each.notes + option]
            yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
