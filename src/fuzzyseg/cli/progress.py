"""Progress display on stderr, as a bar or as lines, and text tables."""

import io
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from fuzzyseg.run.progress import terminal

Show = Callable[[int, int], None]


@contextmanager
def counter(what: str, *, every: float | None = None) -> Iterator[Show]:
    """Yield a function of (done, total) that updates a progress bar and its ETA.

    every: seconds between progress lines if stderr is not a terminal. Default: no lines.
    """
    console = terminal(stderr=True)
    if not console.is_terminal:
        yield _lines(what, every, console)
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


def _lines(what: str, every: float | None, console: Console) -> Show:
    """Return a function that prints progress lines, with an ETA extrapolated from the start of the count."""
    start = shown = time.monotonic()
    before = 0

    def show(done: int, total: int) -> None:
        nonlocal start, shown, before
        now = time.monotonic()
        if done <= before:  # the count restarted
            start = shown = now
        before = done
        if every is not None and now - shown >= every:
            shown = now
            left = timedelta(seconds=round((now - start) / done * (total - done)))
            console.print(f"{what} {done}/{total}  ETA {left}", markup=False, highlight=False, soft_wrap=True)

    return show


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Format a table as unwrapped lines of text, with names left-aligned and numbers right-aligned."""
    shown = Table(box=None, padding=(0, 2, 0, 0), show_edge=False)
    for place, title in enumerate(head):
        number = all(row[place][:1].isdigit() or row[place] in ("", "-") for row in rows)
        shown.add_column(Text(title), justify="right" if number else "left", no_wrap=True)
    for row in rows:
        shown.add_row(*map(Text, row))
    text = io.StringIO()
    Console(file=text, width=10_000).print(shown)
    return ["  " + line.rstrip() for line in text.getvalue().splitlines()]
