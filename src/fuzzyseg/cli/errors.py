"""Error messages and exit codes.

0: success. 1: the work failed (a loss that is not finite, an image that cannot be predicted). 2: an invalid request (an
unknown setting, a missing file). 130: interrupted.
"""

from __future__ import annotations

from typing import Any

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

FAILED, REFUSED, INTERRUPTED = 1, 2, 130


class Failure(Exception):
    """The work started and failed: exit code 1."""


def complain(message: str) -> None:
    """Print an error on stderr, red on a terminal."""
    from fuzzyseg.data.text import printable

    Console(stderr=True).print(Text(f"error: {printable(message)}", style="red"), soft_wrap=True)


class Verbs(TyperGroup):
    """The commands. An error that the user can correct is one message; with `--debug`, a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; turn errors into messages and exit codes."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # the reader of the output has closed it: click exits silently
            raise
        except (Failure, ValueError, OSError) as error:
            if ctx.params["debug"]:
                raise
            complain(str(error))
            raise typer.Exit(FAILED if isinstance(error, Failure) else REFUSED) from None
        except KeyboardInterrupt:
            if ctx.params["debug"]:
                raise
            complain("interrupted")
            raise typer.Exit(INTERRUPTED) from None
