"""Lists and counts in messages."""

from __future__ import annotations

from collections.abc import Sequence


def short(values: Sequence[object], most: int = 8) -> str:
    """The first few of a list, for messages."""
    text = ", ".join(str(v) for v in values[:most])
    return text if len(values) <= most else f"{text}, ... ({len(values)} in all)"


def counted(count: int, what: str) -> str:
    """`1 file`, `2 files`, `1 class`, `2 classes`."""
    plural = f"{what}es" if what.endswith("s") else f"{what}s"
    return f"{count} {what if count == 1 else plural}"
