"""Output streams that escape control characters."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any


class Cleaned:
    """Text stream wrapper that escapes control characters, and bytes in file names that are not UTF-8.

    A leading carriage return is kept, because the progress bars of libraries write it.
    """

    def __init__(self, stream: Any) -> None:
        self.raw = stream

    def write(self, text: str) -> int:
        """Escape `text` and write it."""
        body = text.removeprefix("\r")
        if not body.replace("\n", "").isprintable():
            from fuzzyseg.data.text import printable  # slow import

            text = text[: len(text) - len(body)] + printable(body)
        return int(self.raw.write(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)


@contextmanager
def cleaned_output() -> Iterator[None]:
    """Escape control characters in stdout and stderr, because file names may contain them.

    Progress bars and colours need control codes. They are written through `fuzzyseg.run.progress.terminal`, which
    bypasses the escaping; callers escape the texts.
    """
    with redirect_stdout(Cleaned(sys.stdout)), redirect_stderr(Cleaned(sys.stderr)):
        yield
