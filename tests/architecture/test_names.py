"""Names: methods only in their places, no attic of a module, no device by name, no print in a library room."""

import ast
import re
from pathlib import Path

import pytest

from fuzzyseg.methods import METHODS as METHODS_TABLE

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "fuzzyseg"

METHODS = (*(name for name in METHODS_TABLE if name not in ("supervised", "distill")), "afpl")
"""Names of the methods without `supervised`, also a loss, a stream and a common word, and `distill`, also a command."""

PLACES = {
    "methods/__init__.py": (METHODS, "METHODS, the table of methods"),
    "config/schema.py": (("cps",), "the default method"),
    "cli/train.py": (("cps",), "an example in the help text"),
}
"""File -> the methods it may name and why, besides each method's own file."""

ATTIC = {"utils", "util", "helpers", "helper", "common", "misc"}
SPEAKING_ROOMS = ("cli", "run", "experiment")


def snake(text: str) -> str:
    """`CPSLoss` -> `cps_loss`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", text).lower()


def _documentation(tree: ast.AST) -> set[int]:
    """The nodes of docstrings, also those below a field: they may name methods, being prose."""
    return {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }


def _words(tree: ast.AST) -> list[tuple[int, str]]:
    """Every identifier and every text of a module, with its line."""
    prose = _documentation(tree)
    result = []
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            result.append((line, node.value))
        for field in ("id", "attr", "arg", "name", "asname", "module"):
            value = getattr(node, field, None)
            if isinstance(value, str):
                result.append((line, value))
    return result


def misplaced_methods(source: str, path: str) -> list[str]:
    """Methods that a source text, read as `path` below the package, names without being their place."""
    allowed = set(PLACES.get(path, ((), ""))[0])
    if path.startswith("methods/"):
        allowed.add(Path(path).parts[1].removesuffix(".py"))
    result = []
    for line, word in _words(ast.parse(source)):
        text = snake(word)
        for name in sorted(METHODS, key=len, reverse=True):
            pattern = rf"(?<![a-z0-9]){name}(?![a-z0-9])"
            if re.search(pattern, text) and name not in allowed:
                result.append(f"{path}:{line} names the method {name}: {word!r}")
            text = re.sub(pattern, "", text)
    return result


def bad_calls(source: str, path: str) -> list[str]:
    """`.cuda()` anywhere; `print` in a room that is a library."""
    result = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr == "cuda" and ast.unparse(node) != "torch.cuda":
            if not ast.unparse(node).endswith("version.cuda"):
                result.append(f"{path}:{node.lineno}: .cuda; devices come from the batch")
        elif isinstance(node, ast.Name) and node.id == "print" and path.split("/")[0] not in SPEAKING_ROOMS:
            result.append(f"{path}:{node.lineno}: print in a library room")
    return result


def unsorted_names(source: str) -> list[str]:
    """Names of `__all__` that stand twice or out of order: constants, classes, functions, each by the alphabet."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            names = ast.literal_eval(node.value)
            order = sorted(names, key=lambda name: (not name.isupper(), not name[0].isupper(), name))
            twice = [name for name in names if names.count(name) > 1]
            return twice + [name for name, right in zip(names, order, strict=True) if name != right]
    return ["__all__ is missing"]


def attic(paths: list[Path]) -> list[str]:
    """Paths with a part that says nothing about what is in it."""
    return [str(path) for path in paths if ATTIC & {part.lower().split(".")[0] for part in path.parts}]


def _sources() -> dict[str, str]:
    files = {path.relative_to(PACKAGE).as_posix(): path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}
    assert len(files) > 20
    return files


def test_no_method_is_named_outside_its_places():
    result = [line for path, text in _sources().items() for line in misplaced_methods(text, path)]
    assert not result, "\n".join(result)


def test_every_method_is_in_the_table():
    stems = {path.name.removesuffix(".py") for path in (PACKAGE / "methods").iterdir() if path.name[0] != "_"}
    assert stems - {"base"} == set(METHODS_TABLE)


def test_no_cuda_and_no_print():
    result = [line for path, text in _sources().items() for line in bad_calls(text, path)]
    assert not result, "\n".join(result)


def test_no_file_or_folder_is_an_attic():
    folders = [ROOT / name for name in ("src", "tests", "docs", "recipes", "benchmarks")]
    paths = [path.relative_to(ROOT) for folder in folders if folder.is_dir() for path in folder.rglob("*")]
    assert not attic(paths)


def test_public_names_are_listed_in_order():
    assert unsorted_names((PACKAGE / "__init__.py").read_text(encoding="utf-8")) == []
    for path in PACKAGE.rglob("__init__.py"):
        text = path.read_text(encoding="utf-8")
        if "__all__ =" in text:
            assert unsorted_names(text) == [], path


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("engine/trainer.py", "if method == 'cps': pass"),
        ("engine/trainer.py", "cps_weight = 1"),
        ("engine/trainer.py", "def f(cps): pass"),
        ("losses/pseudo_label.py", "class CPSLoss: pass"),
        ("losses/pseudo_label.py", "x = MeanTeacher"),
        ("losses/pseudo_label.py", "x = U2PLHead"),
        ("methods/ael.py", "x = batch.cps"),
        ("methods/unimatch.py", "import unimatch_v2"),
        ("config/schema.py", "name = 'ael'"),
        ("experiment/train.py", "from fuzzyseg.methods.vat import VAT as Other"),
    ],
)
def test_the_checker_sees_a_misplaced_method(path, source):
    assert misplaced_methods(source, path)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("methods/cps.py", "class CPS: pass"),
        ("methods/gct/__init__.py", "name = 'gct'"),
        ("methods/__init__.py", "METHODS = {'ael': AEL}"),
        ("config/schema.py", "name = 'cps'"),
        ("losses/pseudo_label.py", '"""AEL weights by conf^2."""'),
        ("losses/pseudo_label.py", "private = privatise = steps_cpsx = 1  # cps"),
    ],
)
def test_the_checker_lets_pass_a_method_in_its_place(path, source):
    assert misplaced_methods(source, path) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("ops/x.py", "x.cuda()"),
        ("experiment/x.py", "f = x.cuda"),
        ("losses/x.py", "print(1)"),
        ("config/load.py", "say = print"),
    ],
)
def test_the_checker_sees_a_bad_call(path, source):
    assert len(bad_calls(source, path)) == 1


def test_the_checker_lets_pass_a_good_call():
    assert bad_calls("import torch\ntorch.cuda.is_available(), torch.version.cuda", "ops/x.py") == []
    assert bad_calls("print(1)", "experiment/x.py") == []


def test_the_checker_sees_names_out_of_order():
    assert unsorted_names("__all__ = ['B', 'A']")
    assert unsorted_names("__all__ = ['b', 'A']")
    assert unsorted_names("__all__ = ['Config', 'METHODS']")
    assert unsorted_names("__all__ = ['A', 'A']")
    assert unsorted_names("x = 1")
    assert unsorted_names("__all__ = ['METHODS', 'Config', '__version__', 'load']") == []


def test_the_checker_sees_an_attic():
    assert len(attic([Path("src/fuzzyseg/utils/x.py"), Path("tests/helpers.py"), Path("src/fuzzyseg/ops/mix.py")])) == 2
