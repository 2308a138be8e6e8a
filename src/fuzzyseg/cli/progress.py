"""How far a command is, where somebody looks on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import Progress

Show = Callable[[int, int], None]


@contextmanager
def counter(what: str, *, every: float | None = None) -> Iterator[Show]:
    """Gives a function of (done, total) that moves a bar with the time that is left, on stderr.

    Without a terminal it writes a line every so many seconds, or, if `every` is None, shows nothing.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(what, every, console)
        return
    # Refreshed by hand: a process that is forked while another thread writes could inherit its locks.
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
    """Plain lines; the time that is left is told from the time since the count began."""

    def __init__(self, what: str, every: float | None, console: Console) -> None:
        self._what, self._every, self._console = what, every, console
        self._start = self._shown = time.monotonic()
        self._done = 0

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if done <= self._done:  # another count
            self._start = self._shown = now
        self._done = done
        if self._every is None or now - self._shown < self._every:
            return
        self._shown = now
        left = timedelta(seconds=round((now - self._start) / done * (total - done)))
        self._console.print(f"{self._what} {done}/{total}  ETA {left}", markup=False, highlight=False, soft_wrap=True)
