"""Error messages and exit codes.

0: success. 1: the work failed (a loss that is not finite, an image that cannot be predicted, too little memory, a fault
of this software). 2: an invalid request (an unknown setting, a missing file). 130: interrupted.
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


class Failure(Exception):
    """The work started and failed: exit code 1."""


def complain(message: str) -> None:
    """Print an error on stderr, red on a terminal."""
    from fuzzyseg.data.text import printable

    terminal(stderr=True).print(Text(f"error: {printable(message)}", style="red"), soft_wrap=True)


class Verb(TyperCommand):
    """A command, which takes no empty text: `--out "$UNSET"` would otherwise mean the working folder."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments. Raises ConfigError for an empty one."""
        for before, word in zip(["", *args], args, strict=False):
            if word == "" or (word.startswith("--") and word.endswith("=")):
                name = (word or before).rstrip("=") if (word or before).startswith("--") else ctx.info_name
                raise ConfigError(f"{name}: found an empty value; give one, or leave it out")
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command. Only `train`, `distill` and `predict` use more than the first process of torchrun."""
        if ctx.info_name not in ("train", "distill", "predict") and (world := process_number("WORLD_SIZE", 1)) > 1:
            if process_number("RANK") != 0:
                return None  # torchrun waits for the first one
            del os.environ["WORLD_SIZE"]  # else its trainings would wait for the others
            typer.echo(f"{ctx.info_name} runs on one of the {world} processes", err=True)
        return super().invoke(ctx)


class Verbs(TyperGroup):
    """The commands. Whatever error reaches it ends in one message; with `--debug`, in a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; turn errors into messages and exit codes."""
        ctx.color = True  # click would remove codes off a terminal; shown, names stay what they are
        try:
            with cleaned_output():
                return super().invoke(ctx)
        except BrokenPipeError:  # the reader of the output has closed it: click exits silently
            raise
        except Exception as error:
            # exit_code: of click's exceptions, which print their own message; Exit and Abort have none to print
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
    """Message and exit code of an error: the error's text if it is meant for the user, else what failed."""
    if isinstance(error, Failure):
        return str(error), FAILED
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(PACKAGE)]
    last = ours[-1].line or "raise" if ours and ours[-1] is frames[-1] else ""  # a call of C code has no frame
    told = type(error).__module__.startswith("fuzzyseg") or last.startswith("raise")
    if isinstance(error, OSError):
        message = str(error) if error.filename is None else f"{error.filename}: {error.strerror or error}"
        return message, FAILED if error.errno in UNWRITABLE else REFUSED
    if isinstance(error, ValueError) and told:
        return str(error), REFUSED
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text:
        advice = "choose a smaller --batch, --crop or image size, or evaluate.mode=sliding"
        return f"fuzzyseg {command}: out of memory ({text[:200] or type(error).__name__}); {advice}", FAILED
    place = f" in {Path(ours[-1].filename).relative_to(PACKAGE).as_posix()}, line {ours[-1].lineno}" if ours else ""
    what = f"{type(error).__name__}: {text[:300]}".rstrip(": ")
    return f"fuzzyseg {command} failed{place} ({what}); --debug shows the traceback, for a report", FAILED
