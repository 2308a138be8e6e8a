"""Options shared by several commands, with the help text of each setting, and conversion of options to a `Config`."""

import functools
import inspect
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Annotated, Any

import typer

from fuzzyseg.config import Config, ConfigError, merge, override, parse_override, read_yaml, validate
from fuzzyseg.config.reference import model_of
from fuzzyseg.config.short_names import SETTINGS

Given = dict[str, Any]
"""Values of the options given on the command line, by name, with `_` instead of `-`."""


def flag(name: str) -> str:
    """Return the option for a name, such as `--stop-at` for `stop_at`."""
    return "--" + name.replace("_", "-")


def setting(name: str, *, default: bool = True) -> inspect.Parameter:
    """Return the option for a setting, with its description as help. default: whether the help shows the default."""
    key, metavar = SETTINGS[name]
    section, _, field = key.rpartition(".")
    info = model_of(section).model_fields[field]
    text = " ".join((info.description or "").split()).replace("None:", "if not given:")
    if default and info.default is not None:
        text += f" [default: {'x'.join(map(str, info.default)) if isinstance(info.default, tuple) else info.default}]"
    kind = next((kind for kind in (int, bool) if info.annotation in (kind, kind | None)), str)
    return option(name, kind, metavar=metavar, help=text)


def option(name: str, kind: Any, default: Any = None, **details: Any) -> inspect.Parameter:
    """Return an option as a signature parameter. A flag that is on by default also gets `--no-NAME`.

    kind: type of the value. details: keyword arguments of `typer.Option`.
    """
    names = f"{flag(name)}/{flag('no_' + name)}" if default is True else flag(name)
    default = typer.Option(default, names, **details)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind | None)


def takes(*options: inspect.Parameter) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that adds options to a command, after its arguments.

    The command receives the values other than None as `given`.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(**values: Any) -> None:
            option_values = {each.name: values.pop(each.name) for each in options}
            command(**values, given={name: value for name, value in option_values.items() if value is not None})

        signature = inspect.signature(command, eval_str=True)
        parameters = [each for each in signature.parameters.values() if each.name != "given"]
        arguments = [each for each in parameters if each.kind is not inspect.Parameter.KEYWORD_ONLY]
        run.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[*arguments, *options, *parameters[len(arguments) :]]
        )
        return run

    return decorate


def overridden(values: Mapping[str, Any], given: Mapping[str, Any], arguments: Iterable[str]) -> dict[str, Any]:
    """Override nested settings with options, and then with KEY=VALUE arguments. Raises ConfigError."""
    changes = [(SETTINGS[name][0].split("."), value) for name, value in given.items()]
    changes += [parse_override(word) for word in arguments if "=" in word]
    return reduce(lambda result, change: override(result, *change), changes, dict(values))


def read_recipe(words: Iterable[str]) -> tuple[str, dict[str, Any]]:
    """Return the name and settings of the recipe among the arguments; empty if there is none. Raises ConfigError."""
    recipes = [word for word in words if "=" not in word]
    for word in recipes:
        if not word.endswith((".yaml", ".yml")):
            hint = f"; to continue a run: --out {word} --resume" * os.path.isfile(os.path.join(word, "config.yaml"))
            raise ConfigError(f"found {word!r}; expected a recipe.yaml or key=value, such as train.ema=0.998{hint}")
    if len(recipes) > 1:
        raise ConfigError(f"found {len(recipes)} recipes, {' and '.join(recipes)}; expected one")
    return (recipes[0], read_yaml(recipes[0])) if recipes else ("", {})


def parse(given: Given, name: str, parser: Callable[[str], Any]) -> None:
    """Replace an option's string value, if given, with its parsed value. Raises ConfigError."""
    try:
        given |= {name: parser(given[name])} if name in given else {}
    except ValueError as error:
        raise ConfigError(f"{flag(name)}: found {given[name]!r}; {error}") from None


def configuration(words: Sequence[str], options: Mapping[str, Any], base: Mapping[str, Any] | None = None) -> Config:
    """Build the configuration. Precedence: defaults < base < recipe < options (names in `SETTINGS`) < KEY=VALUE.

    Raises ConfigError.
    """
    name, values = read_recipe(words)
    if "arms" in values:
        raise ConfigError(f"{name}: compares several runs; use `fuzzyseg sweep {name}`")
    if "start" in values:
        raise ConfigError(
            f"{name}: has a section 'start', which only `fuzzyseg sweep` and `fuzzyseg compare` use; for a single run, "
            "remove it and give the initial weights with --init"
        )
    return validate(overridden(merge(base or {}, values), options, words))


def listed(text: str | None) -> list[str]:
    """Split `a,b` into [a, b]; None gives []."""
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def _load(files: list[Path] | None) -> list[Path] | None:
    """Import the files before the command runs."""
    if files:
        from fuzzyseg.plugins import import_file

        for file in files:
            import_file(file)
    return files


Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="RECIPE.yaml|KEY=VALUE",
        help="A settings file and single settings by dotted name, such as train.ema=0.998, in any order.",
    ),
]
DEVICE = option("device", str, "auto", metavar="NAME", help="auto, cpu, cuda, cuda:N or mps.")
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Import = Annotated[
    list[Path] | None,
    typer.Option(
        "--import",
        metavar="FILE.py",
        callback=_load,
        help="Python file that defines METHODS, LOSSES, DATASETS or METRICS; may be given several times.",
    ),
]
