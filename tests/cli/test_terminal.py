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
SWEEP = """
from types import SimpleNamespace as Made
from fuzzyseg.cli.sweep import _watched
run = Made(name="cps-s0", step=3, steps=9, loss=None, score=None, seconds_left=60.0)
with _watched() as (line, watch):
    watch(Made(done=0, total=2, seconds_left=120.0, running=[run]))
    line("scan\\x1b[2J.png: odd")
    watch(Made(done=1, total=2, seconds_left=60.0, running=[]))
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


def test_a_sweep_shows_what_runs_until_it_ends():
    before, _, after = on_a_terminal(SWEEP).partition(b"scan\\u001b[2J.png: odd")
    assert b"0 of 2 runs finished, ETA 0:02:00" in before and b"cps-s0: step 3/9, ETA 0:01:00" in before
    assert b"1 of 2 runs finished, ETA 0:01:00" in after
    assert after.rindex(b"\x1b[2K") > after.rindex(b"1 of 2")  # the display is erased


@pytest.mark.parametrize("name", ["scan", "tif", "gif", "bmp"])
def test_names_in_logs_warnings_and_messages_send_no_codes(name):
    written = on_a_terminal(LOGGED)
    assert name.encode() in written
    assert b"\x1b" not in written and b"\x9b" not in written and "\x9b".encode() not in written
    assert b"\r" not in written.replace(b"\r\n", b"")
