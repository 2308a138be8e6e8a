"""Options, settings and names in commands and code of README and docs exist. Tutorial and README are run elsewhere."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from fuzzyseg.cli import app
from fuzzyseg.config import override, parse_override, validate

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS = typer.main.get_command(app)


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """Language and text of fenced blocks; `sh` for indented ones."""
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        yield language, block
    rest = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    for block in re.findall(r"(?:^ {4}.+\n)+", rest, re.MULTILINE):
        yield "sh", block


def commands(page: Path) -> list[str]:
    """The lines of a page that call fuzzyseg, without environment variables and launchers."""
    lines: list[str] = []
    for language, block in blocks(page.read_text(encoding="utf-8")):
        if language in ("sh", "bash", "console", ""):
            for line in re.sub(r"\\\n\s*", " ", block).splitlines():
                result = re.match(r"\s*(?:\$ )?(?:[A-Z_]+=\S+ )*(?:torchrun .* -m )?(fuzzyseg .+)", line)
                if result:
                    lines.append(result[1])
    return lines


CASES = [pytest.param(line, id=f"{page.name}: {line}"[:120]) for page in PAGES for line in commands(page)]
CODE = [
    pytest.param(block, id=f"{page.name} {number}")
    for page in PAGES
    for number, (language, block) in enumerate(blocks(page.read_text(encoding="utf-8")))
    if language == "python"
]


def test_pages_have_commands_and_code():
    assert len(CASES) > 40
    assert len(CODE) >= 5


@pytest.mark.parametrize("line", CASES)
def test_the_options_and_settings_of_a_command_exist(line):
    words = shlex.split(line, comments=True)[1:]
    if "|" in words or ">" in words:
        words = words[: min(words.index(mark) for mark in ("|", ">") if mark in words)]
    if "..." in words:
        words = [word for word in words if word != "..."]
    if words[0].startswith("-"):
        return
    name, rest = words[0], words[1:]
    assert name in COMMANDS.commands
    command = COMMANDS.commands[name]
    context = command.context_class(command, info_name=name)
    given, _, _ = command.make_parser(context).parse_args(list(rest))
    if name in ("train", "distill"):
        values: dict[str, object] = {}
        for word in given.get("words") or ():
            if "=" in word and not word.startswith("<"):
                values = override(values, *parse_override(word))
        validate(values)


@pytest.mark.parametrize("block", CODE)
def test_the_names_that_code_imports_exist(block):
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fuzzyseg"):
            module = importlib.import_module(node.module or "")
            for alias in node.names:
                assert hasattr(module, alias.name), f"{node.module}.{alias.name}"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "fuzzyseg":
            assert hasattr(importlib.import_module("fuzzyseg"), node.attr), node.attr
