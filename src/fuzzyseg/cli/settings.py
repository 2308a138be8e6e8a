"""`fuzzyseg settings`: list the settings."""

import shutil
import sys
from typing import Annotated

import typer

from fuzzyseg.cli.options import flag
from fuzzyseg.cli.train import OPTIONS
from fuzzyseg.config.reference import all_settings, chosen, markdown, plain
from fuzzyseg.config.short_names import SETTINGS


def settings(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="A section or a setting (data.cache).")] = None,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print the tables of docs/settings.md.")] = False,
) -> None:
    """List all run settings, those of one section, or a single one.

    Shows name, default, values, description, and the corresponding `fuzzyseg train` option, if any. Prints one line
    per setting if the output is not a terminal.

    \b
    Examples:
      fuzzyseg settings
      fuzzyseg settings data
      fuzzyseg settings loss.threshold
    """
    options = {SETTINGS[name][0]: flag(name) for name in OPTIONS}
    selected = list(all_settings(options)) if name is None else chosen(name, options)
    width = max(40, shutil.get_terminal_size().columns) if sys.stdout.isatty() else None  # wrap width
    for line in markdown(selected) if as_markdown else plain(selected, width):
        typer.echo(line)
    if name is None and not as_markdown:
        typer.echo("\nto set one: fuzzyseg train ... KEY=VALUE; settings of a method: fuzzyseg methods NAME")
