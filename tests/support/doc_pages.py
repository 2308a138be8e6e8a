"""Commands and code blocks of README and docs, in order of appearance."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PROGRAMS = ("cvat-cli", "fuzzyseg", "make", "pip", "python", "python3", "torchrun")


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """Yield (language, text) of each block; indented blocks are `sh`, or `python` if they use the package."""
    for language, fenced, indented in re.findall(
        r"^```(\w*)\n(.*?)^```|((?:^ {4}[^\n]*\S[^\n]*\n)+)", text, re.DOTALL | re.MULTILINE
    ):
        if indented:
            code = re.search(r"^ +from fuzzyseg import|\bfuzzy_positive_loss\(", indented, re.MULTILINE)
            yield "python" if code else "sh", re.sub(r"^ {4}", "", indented, flags=re.MULTILINE)
        else:
            yield language, fenced


def commands_of(language: str, block: str) -> list[str]:
    """Return the shell commands of a block, without comments and with continued lines joined."""
    if language not in ("sh", "bash", "console", ""):
        return []
    lines = [re.sub(r"\s+#.*", "", line).strip() for line in re.sub(r"\\\n\s*", " ", block).splitlines()]
    return [line for line in lines if line and line.split()[0] in PROGRAMS]


def commands(page: Path) -> list[str]:
    """Return the shell commands of a page."""
    return [line for each in blocks(page.read_text(encoding="utf-8")) for line in commands_of(*each)]
