"""All settings in words, from the models themselves: for `fuzzyseg settings` and `docs/settings.md`."""

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
    "A setting is given in a file, `fuzzyseg train recipe.yaml` (with sections, `data: {cache: disk}`), by an option "
    "of `fuzzyseg train` where there is one (`--labelled 46`), or by its dotted name, `data.cache=disk`; where it is "
    "given in several ways the later of these counts. `fuzzyseg.train` takes the sections as dictionaries. Where "
    "`null` is allowed, `KEY=null` or `KEY=` says: not given. Lists are written `[a,b]`, in quotes where the shell has "
    "a use for brackets; files, folders and bands also `a,b`. `HxW` is height x width in pixels, or one number for "
    "both. `fuzzyseg settings` prints the same as text, `fuzzyseg settings data` one section."
)
"""How settings are given: the introduction of the page."""

_BOUNDS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
_KINDS: dict[Any, tuple[str, str]] = {
    bool: ("true | false", ""),
    int: ("whole number", "whole numbers"),
    float: ("number", "numbers"),
    str: ("text", "texts"),
}
"""Type -> what is written for one value, and for several in a list."""


@dataclass(frozen=True)
class Setting:
    """name: dotted. kind: what may be given. default: as one would write it. option: `fuzzyseg train`'s, or ''."""

    name: str
    kind: str
    default: str
    about: str
    option: str = ""


@dataclass(frozen=True)
class Group:
    """The settings of a section. name: dotted; '': those of no section. open: it takes further names too."""

    name: str
    about: str
    settings: tuple[Setting, ...]
    open: bool = False


def groups(options: Mapping[str, str] | None = None) -> list[Group]:
    """All settings, by section. options: setting -> the option of `fuzzyseg train` that stands for it."""
    return list(_groups(Config, "", options or {}))


def chosen(name: str, options: Mapping[str, str] | None = None) -> list[Group]:
    """The settings that a name means: a section with those in it, a setting, or all whose name ends with it.

    Raises ConfigError naming the nearest.
    """
    everything = groups(options)
    known = [each.name for group in everything for each in group.settings]
    meant = [each for each in known if f"{each}.".startswith(f"{name}.")]
    meant = meant or [each for each in known if each.endswith(f".{name}")]
    if name and meant:
        found = [replace(each, settings=tuple(s for s in each.settings if s.name in meant)) for each in everything]
        return [each for each in found if each.settings]
    raise ConfigError(f"settings: found {name!r}, which is no setting and no section.{_nearest(name, everything)}")


def _nearest(name: str, everything: Iterable[Group]) -> str:
    """The nearest name, or those to choose from; for a section that takes further names, what these are."""
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
    """The group of a model, then those of the sections in it."""
    fields = {f"{name}.{key}".lstrip("."): info for key, info in model.model_fields.items()}
    inner = {key: section for key, info in fields.items() if (section := _section(info)) is not None}
    settings = [_setting(key, info, options.get(key, "")) for key, info in fields.items() if key not in inner]
    about = " ".join((inspect.getdoc(model) or "").split()) if name else "Settings of no section."
    yield Group(name, about, tuple(settings), model.model_config.get("extra") == "allow")
    for key, section in inner.items():
        yield from _groups(section, key, options)


def _section(info: FieldInfo) -> type[BaseModel] | None:
    """The model of a field that is a section."""
    kind = info.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _setting(name: str, info: FieldInfo, option: str) -> Setting:
    value = info.get_default(call_default_factory=True)
    about = (info.description or "").replace("None:", "null:")
    return Setting(name, _kind(info.annotation, info.metadata), written(value, info.annotation), about, option)


def _kind(kind: Any, metadata: Iterable[Any] = ()) -> str:
    """What values of a type are, in words. metadata: pydantic's, of which the bounds are told."""
    origin, inside = get_origin(kind), get_args(kind)
    if kind == Size:
        return "HxW"
    if kind is NoneType:
        return "null"
    if origin is Literal:
        return " | ".join(map(str, inside))
    if origin is Annotated:
        info = FieldInfo.from_annotation(kind)
        if info.title is not None:  # how a text has to look
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
    """A default as it is given on the command line."""
    if kind == Size and value is not None:
        return "x".join(map(str, value))
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def plain(shown: Iterable[Group], width: int | None = None) -> Iterator[str]:
    """Groups as lines of text: a setting a line, or, with a width, its name and below it what it does, wrapped."""
    for number, group in enumerate(shown):
        yield from [""] * (number > 0)
        title = f"{group.name}: {group.about}" if group.name else group.about
        yield from [title] if width is None else textwrap.wrap(title, width)
        for each in group.settings:
            about = each.about + (f" Option: {each.option}." if each.option else "")
            head = f"  {each.name}={each.default}  ({each.kind})"
            if width is None:
                yield f"{head}  {about}"
            else:
                yield from textwrap.wrap(head, width, subsequent_indent="    ")
                yield from textwrap.wrap(about, width, initial_indent=" " * 6, subsequent_indent=" " * 6)


def markdown(shown: Iterable[Group]) -> Iterator[str]:
    """Groups as the lines of a Markdown page, a table each."""
    yield "# Settings"
    yield ""
    yield "<!-- written by `fuzzyseg settings --markdown`: change the descriptions in src/fuzzyseg/config instead -->"
    yield ""
    yield from textwrap.wrap(HOW, 120, break_on_hyphens=False)
    for group in shown:
        yield from ["", f"## {group.name or 'At the top'}", "", group.about, ""]
        yield from ["| setting | values | default | what |", "| --- | --- | --- | --- |"]
        for each in group.settings:
            option = f" Option: `{each.option}`." if each.option else ""
            cells = [f"`{each.name}`", f"`{each.kind}`", f"`{each.default}`", each.about + option]
            yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
