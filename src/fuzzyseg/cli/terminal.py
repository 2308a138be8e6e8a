"""Standard output of the commands, from which nothing reaches a terminal as a control code."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any


class Cleaned:
    """A text stream that escapes control characters, and bytes of file names that are no UTF-8, in what is written."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write the text."""
        if not text.replace("\n", "").isprintable():
            from fuzzyseg.data.text import printable  # imports much

            text = printable(text)
        return int(self._stream.write(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def cleaned_output() -> Iterator[None]:
    """A context in which all that is printed on stdout is cleaned: names of files and classes may hold anything."""
    with redirect_stdout(Cleaned(sys.stdout)):
        yield
