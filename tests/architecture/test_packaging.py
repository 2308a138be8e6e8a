"""Packaging: version, dependencies, README on a package index, pages of the documentation."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import fuzzyseg

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
IMPORTED_AS = {
    "cvat-sdk": "cvat_sdk",
    "segmentation-models-pytorch": "segmentation_models_pytorch",
    "pyyaml": "yaml",
    "pillow": "PIL",
    "huggingface-hub": "huggingface_hub",
}
BROUGHT_ALONG = {
    "openvino": "a large package for one export, which names it where it is missing",
    "pillow_heif": "a plugin of Pillow that the user may have; it is used where it is there",
    "triton": "PyTorch for CUDA depends on it; its kernels are used where it is there",
}


def names(requirements: list[str]) -> set[str]:
    """The modules that requirements install."""
    result = {re.split(r"[\[<>=~! ]", each)[0].lower() for each in requirements}
    return {IMPORTED_AS.get(name, name) for name in result}


def imported() -> set[str]:
    """Packages of others that ours imports anywhere."""
    result = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                result |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                result.add((node.module or "").split(".")[0])
    return result - {"fuzzyseg"} - sys.stdlib_module_names


def test_the_core_dependencies_are_what_is_imported_and_no_extra():
    extras = PROJECT["project"]["optional-dependencies"]
    core = names(PROJECT["project"]["dependencies"])
    optional = names([each for name, group in extras.items() if name not in ("all", "dev", "docs") for each in group])
    assert core.isdisjoint(optional)
    assert imported() - set(BROUGHT_ALONG) - optional == core


def test_every_core_dependency_is_explained():
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8").lower()
    table = page.split("## core dependencies")[1].split("## ")[0]
    for requirement in PROJECT["project"]["dependencies"]:
        assert re.search(rf"\b{re.split('[<>=~]', requirement)[0].lower()}\b", table), requirement
    for extra in set(PROJECT["project"]["optional-dependencies"]) - {"dev", "docs"}:
        assert f"| `{extra}` |" in page


def test_the_extra_all_holds_every_ability():
    extras = PROJECT["project"]["optional-dependencies"]
    inside = re.fullmatch(r"fuzzyseg\[(.*)\]", *extras["all"])
    assert inside is not None
    apart = {"all", "dev", "docs", "ray", "track"}  # ray is large; trackio limits Pillow's version
    assert set(inside[1].split(",")) == set(extras) - apart


def test_one_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    newest = re.search(r"^## \[(\d[^]]*)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest is not None
    assert citation["version"] == newest[1] == fuzzyseg.__version__
    assert "version" in PROJECT["project"]["dynamic"]


def test_classifiers_and_workflow_name_the_same_versions():
    shown = [each.split(":: ")[-1] for each in PROJECT["project"]["classifiers"] if ":: 3." in each]
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8"))
    assert workflow["jobs"]["test"]["strategy"]["matrix"]["python"] == shown
    assert PROJECT["project"]["requires-python"] == f">={shown[0]}"
    assert (ROOT / "src" / "fuzzyseg" / "py.typed").is_file()


def test_the_readme_is_short_and_has_no_relative_link_on_a_package_index():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.split()) <= 900
    for each in PROJECT["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]:
        text = re.sub(each["pattern"], each["replacement"], text)
    assert re.findall(r"\]\((?!https?://|#)", text) == []
    assert "the tutorial, commands, settings" in text


def pages(nav: list | dict | str) -> set[str]:
    """Files that a navigation names."""
    if isinstance(nav, str):
        return {nav}
    return set().union(*(pages(each) for each in (nav.values() if isinstance(nav, dict) else nav)))


@pytest.fixture(scope="module")
def navigation() -> set[str]:
    return pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])


def test_every_page_stands_in_the_navigation(navigation):
    assert navigation == {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}


def test_llms_txt_names_pages_that_exist(navigation):
    links = re.findall(r"\]\(([^)]+)/\)", (ROOT / "docs" / "llms.txt").read_text(encoding="utf-8"))
    assert {f"{link}.md" for link in links} <= navigation
    assert {page for page in navigation if not page.startswith("methods/")} - {f"{link}.md" for link in links} == {
        "index.md"
    }
