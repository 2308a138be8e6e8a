"""What the user sees when something goes wrong, and the exit codes.

0: done. 1: the work itself failed (a loss that is not finite, an image that cannot be predicted). 2: the request cannot
be carried out as given (an unknown setting, a missing file). 130: interrupted.
"""

from __future__ import annotations

from typing import Any

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

FAILED, REFUSED, INTERRUPTED = 1, 2, 130


class Failure(Exception):
    """The work began and failed: exit code 1 with this message."""


def complain(message: str) -> None:
    """One error on stderr; red on a terminal, plain elsewhere."""
    Console(stderr=True).print(Text(f"error: {message}", style="red"), soft_wrap=True)


class Verbs(TyperGroup):
    """The commands; an error that the user can mend is shown as one message, with `--debug` as a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the chosen command and turns errors into messages and exit codes."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # the reader of our output has gone: click ends quietly
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
