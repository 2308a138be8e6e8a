"""Texts of files, names on terminals and in Markdown."""

import json

import pytest

from fuzzyseg.data.text import decoded, markdown, printable


@pytest.mark.parametrize("text", ["a\nb\n", "images/é.png\n", "x"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_files_in_either_unicode_encoding(text, encoding):
    assert decoded(text.encode(encoding)) == text


def test_what_is_neither_is_an_error_or_kept():
    with pytest.raises(UnicodeError):
        decoded(b"gr\xf6n\n")
    assert decoded(b"gr\xf6n\n", "surrogateescape") == "gr\udcf6n\n"


@pytest.mark.parametrize("name", ["\x1b[2J", "\x9b2J", "\udcff", "\x7f", "\u202e", "\U000e0001"])
def test_codes_are_shown_and_leave_json_valid(name):
    shown = printable(json.dumps({"file": name + "é\n"}, ensure_ascii=False))
    assert shown.isprintable()
    assert json.loads(shown) == {"file": name + "é\n"}


def test_names_in_markdown_mean_themselves():
    assert markdown("a|b `c` <i>") == r"a\|b \`c\` \<i\>"
    assert markdown("__ignore__ _x_") == r"\_\_ignore\_\_ \_x\_"
    assert markdown("a\n# b") == "a # b"
    assert markdown("sign_symbol 3 %") == "sign_symbol 3 %"
