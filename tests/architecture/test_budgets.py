"""Budgets: the lines of the package, a file, a function, a method and the training loop."""

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "fuzzyseg"
FILE, FUNCTION, METHOD = 300, 60, 150
ALLOWANCES = {
    "training and data": 18_500,
    "reports, outputs, export, suggestions, distillation, trackers": 3_000,
    "several processes, sharding, Ray, dry run, threads, checkpointing": 550,
}
CODE = sum(ALLOWANCES.values())
"""Lines of code of the package. A new capability states its allowance."""

EXCEPTIONS: dict[str, tuple[int, str]] = {
    "engine/trainer.py:fit": (120, "the loop has a budget of its own (design: engine)"),
    "methods/ael/__init__.py": (
        250,
        "adaptive sampling, mixing and weighting are one method (design: house style)",
    ),
}
"""Path, or path:function -> its own budget and why. A budget broken is a decision written down here."""


def over_budget(source: str, path: str) -> list[str]:
    """What in a source text, read as `path` below the package, is longer than its budget."""
    is_method = re.fullmatch(r"methods/(\w+/__init__|(?!__init__|base)\w+)\.py", path) is not None
    lengths = {path: (len(source.splitlines()), METHOD if is_method else FILE)}
    pending: list[tuple[ast.AST, str]] = [(ast.parse(source), "")]
    while pending:
        node, above = pending.pop()
        for child in ast.iter_child_nodes(node):
            name = above
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                name = f"{above}.{child.name}".lstrip(".")
                if not isinstance(child, ast.ClassDef):
                    assert child.end_lineno is not None
                    lengths[f"{path}:{name}"] = (child.end_lineno - child.lineno + 1, FUNCTION)
            pending.append((child, name))
    return [
        f"{place}: {length} lines, budget {budget}"
        for place, (length, usual) in lengths.items()
        if length > (budget := EXCEPTIONS.get(place, (usual, ""))[0])
    ]


def test_everything_is_within_its_budget():
    files = sorted(PACKAGE.rglob("*.py"))
    assert len(files) > 20
    result = []
    for path in files:
        result += over_budget(path.read_text(encoding="utf-8"), path.relative_to(PACKAGE).as_posix())
    assert not result, "\n".join(result)


def code_lines(source: str) -> int:
    """Lines of a source text that hold code: no blank lines, comments or docstrings, nor texts below a field."""
    prose: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            prose |= {*range(node.lineno, (node.end_lineno or node.lineno) + 1)}
    lines: set[int] = set()
    layout = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in layout:
            lines |= {*range(token.start[0], token.end[0] + 1)}
    return len(lines - prose)


def test_the_package_is_within_its_budget():
    assert sum(code_lines(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")) <= CODE


def test_code_lines_counts_neither_prose_nor_blank_lines():
    source = '"""Doc.\n\nMore."""\n\n# why\nx = (  # two\n    1,\n\n)\n"""Of x."""\ny = """a\nb"""\n'
    assert code_lines(source) == 5


@pytest.mark.parametrize("reason", [reason for _, reason in EXCEPTIONS.values()])
def test_every_exception_has_a_reason(reason):
    assert len(reason) > 20


def _function(lines: int, name: str = "f", indent: str = "") -> str:
    return f"{indent}def {name}():\n" + f"{indent}    x = 1\n" * (lines - 1)


@pytest.mark.parametrize(
    ("path", "at_budget", "over"),
    [
        ("data/x.py", "x = 1\n" * FILE, "x = 1\n" * (FILE + 1)),
        ("methods/x.py", "x = 1\n" * METHOD, "x = 1\n" * (METHOD + 1)),
        ("methods/base.py", "x = 1\n" * FILE, "x = 1\n" * (FILE + 1)),
        ("methods/ael/__init__.py", "x = 1\n" * 250, "x = 1\n" * 251),
        ("data/x.py", _function(FUNCTION), _function(FUNCTION + 1)),
        ("data/x.py", "class A:\n" + _function(60, indent="    "), "class A:\n" + _function(61, indent="    ")),
        ("data/x.py", "if True:\n" + _function(60, indent="    "), "if True:\n" + _function(61, indent="    ")),
        ("engine/trainer.py", _function(120, "fit"), _function(121, "fit")),
        ("engine/trainer.py", _function(60, "other"), _function(61, "other")),
    ],
)
def test_the_checker_sees_one_line_too_many(path, at_budget, over):
    assert over_budget(at_budget, path) == []
    assert len(over_budget(over, path)) == 1
