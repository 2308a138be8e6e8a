"""Ctrl-C and SIGTERM: the first asks the loop to save and end, the second ends it at once."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from fuzzyseg.ops import distributed

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """A context in which `asked` becomes True at the first signal; a second raises KeyboardInterrupt.

    The handlers that were there come back at the end. Outside the main thread, where Python takes no handlers, signals
    do what they did before.
    """

    def __init__(self) -> None:
        self.asked = False
        self._owner = os.getpid()
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            # None stands for a handler that was not set from Python and cannot be put back
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._owner:  # a forked reader of images: Ctrl-C reaches it too, but the loop decides
            if number == signal.SIGTERM:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        if distributed.rank() == 0:
            # A step or an evaluation may take minutes: whoever sees nothing happen presses again. Straight to the file,
            # because a handler may run in the middle of another print.
            os.write(2, b"\nending after this step, with a save; a second signal ends at once, without one\n")
