"""Output streams of the commands that escape control codes."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any


class Cleaned:
    """A text stream that escapes control characters, and non-UTF-8 bytes of file names.

    A leading carriage return is kept, because progress bars of libraries write it.
    """

    def __init__(self, stream: Any) -> None:
        self.raw = stream

    def write(self, text: str) -> int:
        """Write `text`, escaped."""
        body = text.removeprefix("\r")
        if not body.replace("\n", "").isprintable():
            from fuzzyseg.data.text import printable  # slow import

            text = text[: len(text) - len(body)] + printable(body)
        return int(self.raw.write(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)


@contextmanager
def cleaned_output() -> Iterator[None]:
    """Context manager that escapes control codes in stdout and stderr, because file names may contain them.

    Progress bars and colours need control codes: `fuzzyseg.run.progress.terminal` bypasses it, with escaped texts.
    """
    with redirect_stdout(Cleaned(sys.stdout)), redirect_stderr(Cleaned(sys.stderr)):
        yield
