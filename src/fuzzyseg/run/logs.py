"""Training logs: sinks, `metrics.jsonl` with one JSON object per logged step, throughput and memory."""

import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fuzzyseg.run.files import write_text

REVIEWED = 20
"""Number of logged lines between reviews, in addition to those at evaluations."""

SCORE = "miou"
"""Key of the main score in evaluations, rows and results: the mean IoU, in [0, 1]."""


class Sink:
    """Receiver of training log lines: nested mappings with the key `step`. Use it with `contextlib.closing`."""

    def write(self, line: dict[str, Any]) -> None:
        """Process a line."""
        raise NotImplementedError

    def tick(self, step: int) -> None:
        """Called after every step with the number of finished steps. Does nothing by default."""

    def close(self) -> None:
        """Called once at the end. Does nothing by default."""


Review = Callable[[Sequence[dict[str, Any]]], list[dict[str, Any]]]


class MetricsLog(Sink):
    """Writer of `metrics.jsonl`: one JSON object per line, flushed immediately; NaN and infinities become null."""

    def __init__(self, path: str | Path, *, keep_to: int = 0, review: Review | None = None) -> None:
        """Continue the file at `path` after step `keep_to`, removing later lines. 0: start a new file.

        review: computes a line's `health` entry, if any, from the lines so far; called at evaluations and every
        `REVIEWED` lines.
        """
        self.path = Path(path)
        truncate_after(self.path, keep_to)
        self._review = review
        self._lines = read_lines(self.path) if review is not None and self.path.is_file() else []
        self._count = len(self._lines)
        self._file = self.path.open("a", encoding="utf-8", errors="backslashreplace")

    def write(self, line: dict[str, Any]) -> None:
        """Append a line. New findings from the review are added to the line as `health`, where later sinks see them."""
        if self._review is not None:
            self._lines.append(line)
            self._count += 1
            if "evaluation" in line or self._count % REVIEWED == 0:
                if findings := self._review(self._lines):
                    line["health"] = findings
                old, recent = self._lines[: -10 * REVIEWED], self._lines[-10 * REVIEWED :]
                self._lines = [each for each in old if "evaluation" in each or "health" in each] + recent
        self._file.write(json.dumps(plain(line), ensure_ascii=False, allow_nan=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Throughput:
    """Images per second and remaining time."""

    def __init__(self, steps: int) -> None:
        """Start the clock. steps: number of steps that will follow."""
        self._left = steps
        self._steps = 0
        self._images = 0
        self._recent = 0
        self._start = self._mark = time.monotonic()
        self._paused = 0.0

    def step(self, images: int) -> None:
        """Count a finished step."""
        self._left -= 1
        self._steps += 1
        self._recent += 1
        self._images += images

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Exclude the enclosed time from images per second, but not from the remaining time, since pauses recur."""
        start = time.monotonic()
        try:
            yield
        finally:
            self._paused += time.monotonic() - start

    def read(self) -> dict[str, float]:
        """Return images/s and seconds per step since the last call, elapsed seconds, and estimated seconds left."""
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


def peak_memory_mib() -> float | None:
    """Return the peak memory of this process in MiB; None if the system does not report it."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def read_lines(path: str | Path) -> list[dict[str, Any]]:
    """Return the lines of a `metrics.jsonl`, without a truncated last line.

    Raises a ValueError that names the file and line if another line is damaged.
    """
    rows = Path(path).read_bytes().splitlines()
    lines = []
    for number, row in enumerate(rows, start=1):
        try:
            line = json.loads(row)
            if not isinstance(line, dict) or not isinstance(line.get("step"), int):
                raise ValueError("not an object with a step")
        except (ValueError, RecursionError) as error:
            if number == len(rows):
                break
            raise ValueError(f"{path}, line {number}: expected an object with a step ({error}); remove it") from None
        lines.append(line)
    return lines


def truncate_after(path: str | Path, step: int) -> None:
    """Remove the lines after `step` and a truncated last line, atomically. A missing file is not created."""
    if Path(path).is_file():
        kept = [line for line in read_lines(path) if line["step"] <= step] if step > 0 else []
        write_text(Path(path), "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in kept))


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON object atomically; non-finite numbers become null."""
    write_text(path, json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def plain(value: Any) -> Any:
    """Convert `value` for JSON: non-finite numbers become None, tuples become lists, and keys become strings."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
