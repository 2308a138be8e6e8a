"""Error messages and exit codes.

0: success. 1: failure at run time (non-finite loss, an image that cannot be predicted, out of memory, a bug).
2: invalid request (an unknown setting, a missing file). 130: interrupted.
"""

import os
import traceback
from pathlib import Path
from typing import Any

import typer
from rich.text import Text
from typer.core import TyperCommand, TyperGroup

from fuzzyseg.cli.terminal import cleaned_output
from fuzzyseg.config import ConfigError
from fuzzyseg.run.environment import process_number
from fuzzyseg.run.files import UNWRITABLE
from fuzzyseg.run.progress import terminal

PACKAGE = Path(__file__).parents[1]

FAILED, REFUSED, INTERRUPTED = 1, 2, 130

DIVIDED = ("train", "distill", "evaluate", "predict")
"""Commands that use all processes of torchrun."""


class Failure(Exception):
    """Raised if a command fails at run time (exit code 1)."""


def complain(message: str) -> None:
    """Print an error on stderr, red on a terminal."""
    from fuzzyseg.data.text import printable

    terminal(stderr=True).print(Text(f"error: {printable(message)}", style="red"), soft_wrap=True)


class Verb(TyperCommand):
    """A command that rejects empty arguments. Otherwise, `--out "$UNSET"` would mean the working directory."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments. Raises ConfigError if one is empty."""
        for before, word in zip(["", *args], args, strict=False):
            if word == "" or (word.startswith("--") and word.endswith("=")):
                name = (word or before).rstrip("=") if (word or before).startswith("--") else ctx.info_name
                raise ConfigError(f"{name}: found an empty value; give a value or omit it")
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command. Under torchrun, those that are not `DIVIDED` run only in the first process."""
        if ctx.info_name not in DIVIDED and (world := process_number("WORLD_SIZE", 1)) > 1:
            if process_number("RANK") != 0:
                return None  # torchrun waits for the first process
            del os.environ["WORLD_SIZE"]  # otherwise its training runs would wait for the others
            typer.echo(f"{ctx.info_name} uses only one of the {world} processes", err=True)
        return super().invoke(ctx)


class Verbs(TyperGroup):
    """The command group. Reports an uncaught error as a single message or, with `--debug`, as a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command, and convert errors to messages and exit codes."""
        ctx.color = True  # otherwise click strips escape codes outside a terminal, which would change file names
        try:
            with cleaned_output():
                return super().invoke(ctx)
        except BrokenPipeError:  # stdout was closed by its reader: click exits silently
            raise
        except Exception as error:
            # Click's exceptions have an exit_code and print their message; Exit and Abort have no message.
            if ctx.params["debug"] or hasattr(error, "exit_code") or isinstance(error, typer.Exit | typer.Abort):
                raise
            message, code = explained(error, ctx.invoked_subcommand)
            complain(message)
            raise typer.Exit(code) from None
        except KeyboardInterrupt:
            if ctx.params["debug"]:
                raise
            complain("interrupted")
            raise typer.Exit(INTERRUPTED) from None


def explained(error: Exception, command: str | None) -> tuple[str, int]:
    """Return the message and exit code for an error: its text if meant for users, else a description of the failure."""
    if isinstance(error, Failure):
        return str(error), FAILED
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(PACKAGE)]
    last = ours[-1].line or "raise" if ours and ours[-1] is frames[-1] else ""  # C code has no frame
    is_user_error = type(error).__module__.startswith("fuzzyseg") or last.startswith("raise")
    if isinstance(error, OSError):
        message = str(error) if error.filename is None else f"{error.filename}: {error.strerror or error}"
        return message, FAILED if error.errno in UNWRITABLE else REFUSED
    if isinstance(error, ValueError) and is_user_error:
        return str(error), REFUSED
    text = " ".join(str(error).split())
    if text.startswith("Symlink loop"):  # raised by Path.resolve() before Python 3.13
        return f"{text}: is a link to itself; expected a file or folder", REFUSED
    if isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text:
        advice = "choose a smaller --batch, --crop or image size, or evaluate.mode=sliding"
        return f"fuzzyseg {command}: out of memory ({text[:200] or type(error).__name__}); {advice}", FAILED
    if ours and Path(ours[-1].filename) == PACKAGE / "ops" / "distributed.py":  # the connection was closed
        return f"fuzzyseg {command}: another process failed; see its message", FAILED
    place = f" in {Path(ours[-1].filename).relative_to(PACKAGE).as_posix()}, line {ours[-1].lineno}" if ours else ""
    summary = f"{type(error).__name__}: {text[:300]}".rstrip(": ")
    return f"fuzzyseg {command} failed{place} ({summary}); --debug shows the traceback to report", FAILED
