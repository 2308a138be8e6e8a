"""Text helpers: decoding, formatting of lists and counts, suggestions and validation errors."""

import codecs
import difflib
import json
import re
import reprlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

from pydantic import ValidationError

T = TypeVar("T")


def short(values: Sequence[object], limit: int = 8) -> str:
    """Join the first `limit` values with commas. If there are more, append the total number."""
    text = ", ".join(str(v) for v in values[:limit])
    return text if len(values) <= limit else f"{text}, ... ({len(values)} in all)"


def printable(text: str) -> str:
    """Escape control characters, and undecodable bytes in file names, for terminal output."""

    def shown(letter: str) -> str:
        return letter if letter.isprintable() or letter == "\n" else json.dumps(letter)[1:-1]  # also valid in JSON

    return "".join(map(shown, text))


def markdown(text: str) -> str:
    """Escape text for use in a line or table cell of a Markdown file."""
    return re.sub(r"([\\`*\[\]<>|&~]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", printable(" ".join(text.split())))


def decoded(data: bytes, errors: str = "strict") -> str:
    """Decode a text file in UTF-8, or in UTF-16 as written by Windows editors and shells. Raises UnicodeError.

    errors: `surrogateescape` preserves bytes that are not UTF-8, as Python does in file names.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16")
    if len(data) % 2 == 0 and b"\0" in data[:2]:  # no byte order mark: one byte of an ASCII letter is 0
        return data.decode("utf-16-be" if data[0] == 0 else "utf-16-le")
    return data.decode("utf-8-sig", errors)


def counted(count: int, what: str) -> str:
    """Format a count with its noun: `1 file`, `2 files`, `1 class`, `2 classes`."""
    plural = f"{what}es" if what.endswith("s") else f"{what}s"
    return f"{count} {what if count == 1 else plural}"


def repeated(values: Sequence[T]) -> list[T]:
    """Return the values that occur more than once."""
    return [value for value, count in Counter(values).items() if count > 1]


def nearest(name: str, known: Sequence[str]) -> str:
    """Return ' Did you mean X?' with the most similar known name, or a list of the known names."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else f" Available: {', '.join(known[:20])}."


def problems(error: ValidationError, keys: Sequence[str] = (), names: Mapping[str, str] | None = None) -> Iterator[str]:
    """Yield one line per problem in a pydantic error: key, value found, value expected.

    keys: known keys, to suggest one for an unknown key. names: maps internal keys to those that the user writes.
    """
    for item in error.errors(include_url=False):
        key = ".".join((names or {}).get(str(part), str(part)) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            yield f"unknown key {key!r}.{nearest(key, keys)}"
        else:
            prefix = f"{key}: found {reprlib.repr(item['input'])}; " if key else ""
            yield prefix + item["msg"].removeprefix("Value error, ")
