"""Command-line application, with one module per command. Torch and modules that need it are imported lazily."""

from typing import Annotated

import typer

from fuzzyseg import __version__
from fuzzyseg.cli.analyse import analyse
from fuzzyseg.cli.check import check
from fuzzyseg.cli.compare import compare
from fuzzyseg.cli.convert import convert
from fuzzyseg.cli.demo import demo
from fuzzyseg.cli.distill import distill
from fuzzyseg.cli.errors import Verb, Verbs
from fuzzyseg.cli.evaluate import evaluate
from fuzzyseg.cli.export import export
from fuzzyseg.cli.methods import methods
from fuzzyseg.cli.predict import predict
from fuzzyseg.cli.push import push
from fuzzyseg.cli.report import report
from fuzzyseg.cli.settings import settings
from fuzzyseg.cli.split import split
from fuzzyseg.cli.suggest import suggest
from fuzzyseg.cli.sweep import sweep
from fuzzyseg.cli.train import train

__all__ = ["app", "main"]

app = typer.Typer(
    name="fuzzyseg",
    cls=Verbs,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help, identical on a terminal, in a pipe and in the documentation
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _version(requested: bool) -> None:
    if requested:
        typer.echo(f"fuzzyseg {__version__}")
        raise typer.Exit


@app.callback()
def _general(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Semantic segmentation from a few labelled images and many unlabelled ones."""


for _command in (
    *(train, evaluate, predict, suggest, report, export, push, distill, analyse, split, sweep),
    *(compare, methods, settings, check, convert, demo),
):
    app.command(cls=Verb)(_command)


def main() -> None:
    """Entry point of the console command `fuzzyseg`."""
    app(prog_name="fuzzyseg")
