"""Progress on stderr, as a bar or lines; tables as text."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

Show = Callable[[int, int], None]


@contextmanager
def counter(what: str, *, every: float | None = None) -> Iterator[Show]:
    """A context with a function of (done, total) that updates a bar and the remaining time, on stderr.

    every: seconds between two lines if there is no terminal; None: no lines.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(what, every, console)
        return
    # Refreshed in this thread: a process forked while another thread writes could inherit its locks.
    with Progress(console=console, transient=True, auto_refresh=False) as bar:
        task = bar.add_task(what, total=None)
        shown = 0.0

        def show(done: int, total: int) -> None:
            nonlocal shown
            bar.update(task, completed=done, total=total)
            if (now := time.monotonic()) - shown > 0.1 or done == total:
                shown = now
                bar.refresh()

        yield show


class _Lines:
    """Plain lines; the remaining time is extrapolated from the start of the count."""

    def __init__(self, what: str, every: float | None, console: Console) -> None:
        self._what, self._every, self._console = what, every, console
        self._start = self._shown = time.monotonic()
        self._done = 0

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if done <= self._done:  # a new count
            self._start = self._shown = now
        self._done = done
        if self._every is None or now - self._shown < self._every:
            return
        self._shown = now
        left = timedelta(seconds=round((now - self._start) / done * (total - done)))
        self._console.print(f"{self._what} {done}/{total}  ETA {left}", markup=False, highlight=False, soft_wrap=True)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table, as wide as its cells: names to the left, numbers to the right."""
    shown = Table(box=None, padding=(0, 2, 0, 0), show_edge=False)
    for place, title in enumerate(head):
        number = all(row[place][:1].isdigit() or row[place] in ("", "-") for row in rows)
        shown.add_column(Text(title), justify="right" if number else "left", no_wrap=True)
    for row in rows:
        shown.add_row(*map(Text, row))
    text = io.StringIO()
    Console(file=text, width=10_000).print(shown)
    return ["  " + line.rstrip() for line in text.getvalue().splitlines()]
