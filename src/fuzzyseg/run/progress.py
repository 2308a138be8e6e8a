"""Progress display: a live bar on a terminal, a plain line per logged step elsewhere."""

import math
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from fuzzyseg.run.logs import SCORE, Sink

SLOW = 10.0
"""Seconds after which the display explains a slow first step."""
DAY = 24 * 3600.0


def terminal(*, stderr: bool = False) -> Console:
    """Return a console for bars and colours. It uses the stream's attribute `raw`, if any, to keep control codes."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(file=getattr(stream, "raw", stream))


class Display(Sink):
    """Display of losses, learning rates, images/s, remaining time and the latest mIoU, for the first process only.

    After three steps, it reports the expected duration; if the first step is slow, it reports what that step computes.
    If the terminal is closed, the display stops without an error, so that training can finish with a checkpoint.
    """

    def __init__(
        self, total: int, *, done: int = 0, work: str = "", console: Console | None = None, live: bool | None = None
    ) -> None:
        """Start the display. done: number of finished steps. work: description of a step. live: whether to show a bar.

        By default, a bar is shown on terminals.
        """
        self.console = console or terminal()
        self._total = total
        self._score = ""
        self._memory, self._seconds, self._mark = "", list[float](), math.nan
        slow = f"still computing the first step after {SLOW:.0f} s: loading, losses and gradients of {work}"
        self._slow = threading.Timer(SLOW, self._line, (slow,))
        self._slow.daemon = True
        self._slow.start()
        self._bar: Progress | None = None
        self._task = TaskID(0)
        if self.console.is_terminal if live is None else live:
            columns = TextColumn("step"), MofNCompleteColumn(), BarColumn(bar_width=20)
            self._bar = Progress(*columns, TextColumn("{task.description}", markup=False), console=self.console)
            self._task = self._bar.add_task("", total=total, completed=done)
            self._bar.start()

    def tick(self, step: int) -> None:
        """Advance the bar; after three steps, print the expected duration."""
        self._slow.cancel()
        if len(self._seconds) < 2:
            before, self._mark = self._mark, time.monotonic()
            if math.isfinite(before):
                self._seconds.append(self._mark - before)
            if len(self._seconds) == 2 and step < self._total:
                self._line(self._plan(sum(self._seconds) / 2, self._total - step))
        if self._bar is not None:
            with suppress(OSError):
                self._bar.update(self._task, completed=step)

    def write(self, line: dict[str, Any]) -> None:
        """Display a logged line."""
        if "evaluation" in line:
            self._mark = time.monotonic()  # evaluation time is not step time
        if memory := line.get("time", {}).get("memory_mib"):
            self._memory = f", {memory * 2**20 / 1e9:.1f} GB of memory"
        if SCORE in line.get("evaluation", {}):
            self._score = score_text(line["evaluation"])
        for finding in line.get("health", ()):
            self._line(f"{finding['level']}: {finding['text']} Try: {finding['advice']}")
        text = "  ".join(self._parts(line))
        if self._bar is None:
            self._line(f"step {line['step']}/{self._total}  {text}")
        else:
            with suppress(OSError):
                self._bar.update(self._task, completed=line["step"], description=text)

    def close(self) -> None:
        """Stop the bar."""
        self._slow.cancel()
        if self._bar is not None:
            with suppress(OSError):
                self._bar.stop()

    def _line(self, text: str) -> None:
        with suppress(OSError):
            self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _plan(self, seconds: float, left: int) -> str:
        text = f"plan: {seconds:.2g} s/step, {timedelta(seconds=round(seconds * left))} for {left} steps{self._memory}"
        if seconds * left <= DAY:
            return text
        return f"{text}; more than a day: --steps {int(DAY / seconds)} takes a day, half the --crop a quarter of this"

    def _parts(self, line: dict[str, Any]) -> Iterator[str]:
        terms = ", ".join(f"{name} {value:.4g}" for name, value in line.get("losses", {}).items())
        yield f"loss {line['loss']:.4g} ({terms})"
        yield "lr " + ", ".join(dict.fromkeys(f"{value:.3g}" for value in line.get("lr", {}).values()))
        pace = line.get("time", {})
        yield f"{pace.get('images_per_second', math.nan):.1f} images/s"
        yield f"ETA {timedelta(seconds=round(pace.get('eta_seconds', 0.0)))}"
        if line.get("skipped_steps"):
            yield f"{line['skipped_steps']} steps skipped (fp16 overflow)"
        if self._score and (self._bar is not None or "evaluation" in line):  # a line reports only its own score
            yield self._score


def score_text(evaluation: Mapping[str, Any]) -> str:
    """Format the mIoU and, if measured, the mIoU over the classes that the network's resolution can represent."""
    resolvable = evaluation.get(f"{SCORE}_resolvable")
    beside = "" if resolvable is None else f" ({100 * resolvable:.2f} % over resolvable classes)"
    return f"mIoU {100 * evaluation[SCORE]:.2f} %{beside}"
