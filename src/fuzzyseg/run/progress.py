"""How far the training is: a live bar on a terminal, a plain line per logged step elsewhere; and how fast it goes."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from fuzzyseg.run.logs import SCORE, Sink


class Pace:
    """Images per second and the time that is left."""

    def __init__(self, steps: int) -> None:
        """`steps`: how many will be done from now on."""
        self._left = steps
        self._steps = 0
        self._images = 0
        self._recent = 0
        self._start = self._mark = time.monotonic()
        self._paused = 0.0

    def step(self, images: int) -> None:
        """One more step is done, with so many images."""
        self._left -= 1
        self._steps += 1
        self._recent += 1
        self._images += images

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Time inside does not count for images per second, but does for the time that is left: it will come again."""
        start = time.monotonic()
        try:
            yield
        finally:
            self._paused += time.monotonic() - start

    def read(self) -> dict[str, float]:
        """Images per second and seconds per step since the last reading, seconds so far and, from their mean, left."""
        now = time.monotonic()
        busy = max(now - self._mark - self._paused, 1e-9)
        elapsed = now - self._start
        values = {
            "images_per_second": self._images / busy,
            "seconds_per_step": busy / max(self._recent, 1),
            "elapsed_seconds": elapsed,
            "eta_seconds": elapsed / max(self._steps, 1) * self._left,
        }
        self._mark, self._paused, self._images, self._recent = now, 0.0, 0, 0
        return values


class Display(Sink):
    """Shows losses, learning rate, images/s, time left and the last mIoU. Only the first process makes one."""

    def __init__(self, total: int, *, done: int = 0, console: Console | None = None, live: bool | None = None) -> None:
        """`done` of `total` steps are finished. live: a bar that moves; by default on a terminal."""
        self.console = console or Console()
        self._total = total
        self._score = ""
        self._bar: Progress | None = None
        self._task = TaskID(0)
        if self.console.is_terminal if live is None else live:
            columns = (
                TextColumn("step"),
                MofNCompleteColumn(),
                BarColumn(bar_width=20),
                TextColumn("{task.description}", markup=False),
            )
            self._bar = Progress(*columns, console=self.console)
            self._task = self._bar.add_task("", total=total, completed=done)
            self._bar.start()

    def tick(self, step: int) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step)

    def write(self, line: dict[str, Any]) -> None:
        """Show a logged line."""
        if SCORE in line.get("evaluation", {}):
            self._score = score_text(line["evaluation"])
        text = "  ".join(self._parts(line))
        if self._bar is not None:
            self._bar.update(self._task, completed=line["step"], description=text)
        else:
            self.console.print(
                f"step {line['step']}/{self._total}  {text}", markup=False, highlight=False, soft_wrap=True
            )

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.stop()

    def _parts(self, line: dict[str, Any]) -> Iterator[str]:
        terms = ", ".join(f"{name} {value:.4g}" for name, value in line.get("losses", {}).items())
        yield f"loss {line['loss']:.4g} ({terms})"
        yield "lr " + ", ".join(dict.fromkeys(f"{value:.3g}" for value in line.get("lr", {}).values()))
        pace = line.get("time", {})
        yield f"{pace.get('images_per_second', math.nan):.1f} images/s"
        yield f"ETA {timedelta(seconds=round(pace.get('eta_seconds', 0.0)))}"
        if self._score:
            yield self._score


def score_text(evaluation: Mapping[str, Any]) -> str:
    """mIoU and, if it was measured, mIoU over the classes that the network's resolution can show."""
    resolvable = evaluation.get(f"{SCORE}_resolvable")
    beside = "" if resolvable is None else f" ({100 * resolvable:.2f} % over resolvable classes)"
    return f"mIoU {100 * evaluation[SCORE]:.2f} %{beside}"
