"""Options, settings and names in commands and code of README and docs exist; `test_docs_run.py` runs them."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml

from fuzzyseg.cli import app
from fuzzyseg.config import merge, override, parse_override, validate
from fuzzyseg.config.plan import read_plan
from fuzzyseg.data.dataset_yaml import Description, read_description
from support.doc_pages import PAGES, blocks, commands

COMMANDS = typer.main.get_command(app)


def fuzzyseg_lines(page: Path) -> list[str]:
    """The lines of a page that call fuzzyseg, without environment variables and launchers."""
    matches = [re.match(r"(?:torchrun .* -m )?(fuzzyseg .+)", line) for line in commands(page)]
    return [match[1] for match in matches if match]


CASES = [pytest.param(line, id=f"{page.name}: {line}"[:120]) for page in PAGES for line in fuzzyseg_lines(page)]
CODE = [
    pytest.param(block, id=f"{page.name} {number}")
    for page in PAGES
    for number, (language, block) in enumerate(blocks(page.read_text(encoding="utf-8")))
    if language == "python"
]

FILES = [
    pytest.param(block, id=f"{page.name} {number}")
    for page in PAGES
    for number, (language, block) in enumerate(blocks(page.read_text(encoding="utf-8")))
    if language == "yaml"
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
        words = given.get("words")
        for word in words if isinstance(words, list | tuple) else ():  # click has a value of its own for none
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


@pytest.mark.parametrize("block", FILES)
def test_yaml_files_are_valid(block, tmp_path):
    path = tmp_path / "dataset.yaml"
    path.write_text(block, encoding="utf-8")
    if "arms:" in block:
        plan = read_plan(path)
        for arm in plan.arms:
            validate(merge(plan.setting(arm, None), plan.compared(arm)))
    elif "..." in block:  # entries are left out, so only the keys can be checked
        assert set(yaml.safe_load(block.replace(", ...", ""))) <= set(Description.model_fields)
    else:
        assert read_description(tmp_path).model_fields_set
