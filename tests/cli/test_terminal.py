"""What reaches a terminal: our own bars as they are, names of files without control codes."""

import os
import pty
import sys

import pytest

BAR = """
from fuzzyseg.run.progress import Display
shown = Display(3)
shown.tick(1)
shown.close()
"""
LOGGED = """
import logging, warnings
logging.getLogger("library").warning("scan\\x1b[2J\\x9b.png\\r: odd")
warnings.warn("scan\\x1b[2J.tif: odd")
print("scan\\x1b[2J.gif", file=sys.stderr)
print("scan\\x1b[2J.bmp")
"""


def on_a_terminal(code):
    """What a program writes to a terminal that is its stdout and stderr."""
    head = f"import sys\nfrom fuzzyseg.cli.terminal import cleaned_output\nwith cleaned_output():\n    exec({code!r})\n"
    child, terminal = pty.fork()
    if child == 0:  # pragma: no cover
        os.execve(sys.executable, [sys.executable, "-c", head], {**os.environ, "TERM": "xterm"})
    written = b""
    while True:
        try:
            part = os.read(terminal, 4096)
        except OSError:  # the other end is closed
            part = b""
        if not part:
            break
        written += part
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, written
    return written


def test_a_bar_moves_the_cursor():
    written = on_a_terminal(BAR)
    assert b"\x1b[2K" in written
    assert b"u001b" not in written


@pytest.mark.parametrize("name", ["scan", "tif", "gif", "bmp"])
def test_names_in_logs_warnings_and_messages_send_no_codes(name):
    written = on_a_terminal(LOGGED)
    assert name.encode() in written
    assert b"\x1b" not in written and b"\x9b" not in written and "\x9b".encode() not in written
    assert b"\r" not in written.replace(b"\r\n", b"")
