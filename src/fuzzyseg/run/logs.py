"""Where the lines of a training go; `metrics.jsonl`, one JSON object per logged step."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fuzzyseg.run.files import write_text

SCORE = "miou"
"""Key of the main score in evaluations, rows and results: the mean IoU, in [0, 1]."""


class Sink:
    """Something that takes the lines of a training. A line is a nested mapping with the key `step`.

    Used as a context: leaving it closes the sink.
    """

    def write(self, line: dict[str, Any]) -> None:
        """Take a logged line."""
        raise NotImplementedError

    def tick(self, step: int) -> None:
        """`step` steps are finished; called after every one of them. Default: nothing."""

    def close(self) -> None:
        """Called once at the end. Default: nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class MetricsLog(Sink):
    """`metrics.jsonl`: valid JSON in every line, on disk as soon as it is written; NaN and infinities become null."""

    def __init__(self, path: str | Path, *, keep_to: int = 0) -> None:
        """Continue the file at `path` after step `keep_to`: later lines are cut off. 0 starts anew."""
        self.path = Path(path)
        truncate_after(self.path, keep_to)
        self._file = self.path.open("a", encoding="utf-8")

    def write(self, line: dict[str, Any]) -> None:
        """Append a line."""
        self._file.write(json.dumps(plain(line), ensure_ascii=False, allow_nan=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_lines(path: str | Path) -> list[dict[str, Any]]:
    """The lines of a `metrics.jsonl`; a last line that was cut short by a crash is left out.

    Raises ValueError naming the file and the line if another one is broken.
    """
    rows = Path(path).read_bytes().splitlines()
    lines = []
    for number, row in enumerate(rows, start=1):
        try:
            line = json.loads(row)
            if not isinstance(line, dict) or not isinstance(line.get("step"), int):
                raise ValueError("no object with a step")
        except ValueError as error:
            if number == len(rows):
                break
            raise ValueError(
                f"{path}, line {number}: is not an object with the key step ({error}); remove it"
            ) from None
        lines.append(line)
    return lines


def truncate_after(path: str | Path, step: int) -> None:
    """Cut off the lines past `step` and a broken last line, all at once. A file that is missing stays missing."""
    if Path(path).is_file():
        kept = [line for line in read_lines(path) if line["step"] <= step] if step > 0 else []
        write_text(Path(path), "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in kept))


def plain(value: Any) -> Any:
    """`value` as JSON can hold it: numbers that are not finite become null, tuples lists, keys text."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
