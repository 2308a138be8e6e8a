"""Output of the commands, from which nothing reaches a terminal as a control code."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any


class Cleaned:
    """A text stream that escapes control characters, and bytes of file names that are no UTF-8, in what is written.

    A carriage return at the start is kept: progress bars of libraries write it.
    """

    def __init__(self, stream: Any) -> None:
        self.raw = stream

    def write(self, text: str) -> int:
        """Write the text."""
        body = text.removeprefix("\r")
        if not body.replace("\n", "").isprintable():
            from fuzzyseg.data.text import printable  # imports much

            text = text[: len(text) - len(body)] + printable(body)
        return int(self.raw.write(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)


@contextmanager
def cleaned_output() -> Iterator[None]:
    """A context in which all that is printed, logged and warned of is cleaned: names of files may hold anything.

    Bars and colours are control codes: `fuzzyseg.run.progress.terminal` writes past it, with texts cleaned before.
    """
    with redirect_stdout(Cleaned(sys.stdout)), redirect_stderr(Cleaned(sys.stderr)):
        yield
