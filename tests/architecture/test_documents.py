"""The documents: what they link to and which files they name is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def dead_links(text: str, folder: Path) -> list[str]:
    """Relative links of a Markdown text that lead nowhere."""
    links = re.findall(r"\]\((?!https?://|#|mailto:)([^)#\s]+)", text)
    return [link for link in links if not (folder / link).exists()]


def missing_files(text: str, folder: Path) -> list[str]:
    """Python files that `code` spans name as paths but that are not there; <name> stands for any."""
    names = set(re.findall(r"`(?:[\w /]* )?((?:[\w<>]+/)+[\w<>]+\.py)`", text))
    return sorted(name for name in names if "<" not in name and not (folder / name).is_file())


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(document):
    assert dead_links(document.read_text(encoding="utf-8"), document.parent) == []


def test_the_nine_stops_name_files_that_exist():
    text = (ROOT / "docs" / "one-batch.md").read_text(encoding="utf-8")
    assert text.count("\n## ") == 9
    assert "`data/loading/sampler.py`" in text
    assert missing_files(text, ROOT / "src" / "fuzzyseg") == []


def test_the_checkers_see_what_is_not_there(tmp_path):
    (tmp_path / "a.py").touch()
    assert dead_links("[x](a.py) [y](b.md) [z](https://example.org) [u](#here)", tmp_path) == ["b.md"]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.py").touch()
    assert missing_files("`data/a.py`, `data/b.py` and `methods/<name>.py`", tmp_path) == ["data/b.py"]
