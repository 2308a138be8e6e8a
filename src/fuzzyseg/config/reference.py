"""Reference of all settings, generated from the config models, for `fuzzyseg settings` and `docs/settings.md`."""

import inspect
import json
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from fuzzyseg.config.base import Size
from fuzzyseg.config.load import ConfigError, nearest, section_of
from fuzzyseg.config.schema import Config

HOW = (
    "Settings are given in a file, `fuzzyseg train recipe.yaml` (with sections, `data: {cache: disk}`), by an option "
    "of `fuzzyseg train`, if any (`--labelled 46`), or by dotted name, `data.cache=disk`; later ones in this order "
    "override earlier ones. `fuzzyseg.train` takes the sections as dictionaries. `KEY=null` or `KEY=` sets `null`, "
    "where allowed. Lists are written `[a,b]`, quoted if the shell expands brackets; lists of files, folders or bands "
    "also as `a,b`. `HxW` is height x width in pixels, or one number for both. Source is the origin of a default. "
    "`fuzzyseg settings` prints this as text, `fuzzyseg settings data` one section."
)
"""Introduction to docs/settings.md."""

_BOUNDS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
_KINDS: dict[Any, str] = {bool: "true | false", int: "integer", float: "number", str: "string"}


@dataclass(frozen=True)
class Setting:
    """A setting in the reference.

    section, name: dotted names. kind: allowed values. default: formatted as on the command line. about: description,
    source and option.
    """

    section: str
    name: str
    kind: str
    default: str
    about: str


def all_settings(options: Mapping[str, str], model: type[BaseModel] = Config, section: str = "") -> Iterator[Setting]:
    """Yield all settings, grouped by section. options: maps settings to options of `fuzzyseg train`."""
    inner = {}
    for key, info in model.model_fields.items():
        name = f"{section}.{key}".lstrip(".")
        if (below := section_of(info)) is not None:
            inner[name] = below
            continue
        about = description(info).replace("None:", "null:")
        about += f" Option: {options[name]}." if name in options else ""
        default = written(info.get_default(call_default_factory=True), info.annotation)
        yield Setting(section, name, _kind(info.annotation, info.metadata), default, about)
    for name, below in inner.items():
        yield from all_settings(options, below, name)


def chosen(name: str, options: Mapping[str, str]) -> list[Setting]:
    """Return the settings of a section and its subsections, one setting, or all settings whose last part is `name`.

    Raises ConfigError, suggesting the nearest known name.
    """
    settings = list(all_settings(options))
    matching = [each for each in settings if f"{each.name}.".startswith(f"{name}.")]
    matching = matching or [each for each in settings if each.name.endswith(f".{name}")]
    if name and matching:
        return matching
    above, _, last = name.rpartition(".")
    section_names = [each.name for each in settings if above and each.section == above]
    if section_names and model_of(above).model_config.get("extra") == "allow":
        hint = f" Available: {', '.join(section_names)}. {_about(above)}"
    elif section_names:
        more = [each.name for each in settings if each.name.endswith(f".{last}")]
        hint = nearest(last, [each.rpartition(".")[2] for each in section_names], prefix=f"{above}.", more=more)
    else:
        names = {each.name for each in settings}
        known = names | {each.section for each in settings} | {each.rpartition(".")[2] for each in names}
        hint = nearest(name, known - {""}, Config.model_fields)
    raise ConfigError(f"settings: found {name!r}, which is neither a setting nor a section.{hint}")


def model_of(section: str) -> type[BaseModel]:
    """Return the model of a section, given its dotted name."""
    model: type[BaseModel] = Config
    for part in section.split(".") if section else ():
        model = section_of(model.model_fields[part]) or model
    return model


def _about(section: str) -> str:
    return " ".join((inspect.getdoc(model_of(section)) or "").split()) if section else "Settings outside any section."


def description(info: FieldInfo) -> str:
    """Return the description of a setting as one line, with the source of its default if declared."""
    extra = info.json_schema_extra
    source = f" Source: {extra['source']}." if isinstance(extra, dict) and "source" in extra else ""
    return " ".join((info.description or "").split()) + source


def _kind(kind: Any, metadata: Iterable[Any] = ()) -> str:
    """Describe the values that a type allows. metadata: pydantic metadata with bounds."""
    origin, inside = get_origin(kind), get_args(kind)
    if kind == Size:
        return "HxW"
    if kind is NoneType:
        return "null"
    if origin is Literal:
        return " | ".join(map(str, inside))
    if origin is Annotated:
        info = FieldInfo.from_annotation(kind)  # the title, if any, is the format of a string
        return info.title or _kind(info.annotation, [*info.metadata, *metadata])
    if origin in (Union, UnionType):
        return " | ".join(_kind(each, () if each is NoneType else metadata) for each in inside)
    if origin is dict:
        return "mapping"
    if origin is list or (origin is tuple and inside[-1] is Ellipsis):
        name, sign, bound = _kind(inside[0]).partition(" >")
        return f"list of {name}s{sign}{bound}"
    if origin is tuple:
        return f"[{', '.join(_kind(each) for each in inside)}]"
    bounds = [
        f"{sign} {getattr(each, key):g}" for each in metadata for key, sign in _BOUNDS.items() if hasattr(each, key)
    ]
    return " ".join([_KINDS[kind], " and ".join(bounds)]).strip()


def written(value: Any, kind: Any = None) -> str:
    """Format a default value as on the command line."""
    if kind == Size and value is not None:
        return "x".join(map(str, value))
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def plain(shown: Iterable[Setting], width: int | None = None) -> Iterator[str]:
    """Yield settings as text: one line each or, given a width, the name and a wrapped description."""
    for number, (section, settings) in enumerate(groupby(shown, lambda each: each.section)):
        yield from [""] * (number > 0)
        title = f"{section}: {_about(section)}" if section else _about(section)
        yield from [title] if width is None else textwrap.wrap(title, width)
        for each in settings:
            head = f"  {each.name}={each.default}  ({each.kind})"
            if width is None:
                yield f"{head}  {each.about}"
            else:
                yield from textwrap.wrap(head, width, subsequent_indent="    ")
                yield from textwrap.wrap(each.about, width, initial_indent=" " * 6, subsequent_indent=" " * 6)


def markdown(shown: Iterable[Setting]) -> Iterator[str]:
    """Yield settings as lines of a Markdown page with one table per section."""
    yield "# Settings"
    yield ""
    yield "<!-- written by `fuzzyseg settings --markdown`: change the descriptions in src/fuzzyseg/config instead -->"
    yield ""
    yield from textwrap.wrap(HOW, 120, break_on_hyphens=False)
    for section, settings in groupby(shown, lambda each: each.section):
        yield from ["", f"## {section or 'Top level'}", "", _about(section), ""]
        yield from ["| setting | values | default | description |", "| --- | --- | --- | --- |"]
        for each in settings:
            about, sign, option = each.about.partition(" Option: ")
            # An escaped pipe in code is shown with its backslash by some renderers.
            cells = [f"`{each.name}`", f"`{each.kind.replace(' | ', ' or ')}`", f"`{each.default}`"]
            cells.append(about + (f"{sign}`{option[:-1]}`." if option else ""))
            yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
