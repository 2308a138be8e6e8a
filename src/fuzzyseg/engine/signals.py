"""Signal handling for training.

The first Ctrl-C, SIGTERM, SIGHUP or SIGUSR1 saves and stops training; the second stops it immediately.
"""

import os
import signal
import threading
from contextlib import suppress
from types import FrameType
from typing import Any, Self

from fuzzyseg.ops import distributed

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name)]
"""Windows has only the first two. Job schedulers send SIGUSR1 before a time limit; a closing terminal sends SIGHUP."""


class Interrupt:
    """Context manager in which the first signal sets `requested` and the second raises KeyboardInterrupt.

    The previous handlers are restored on exit. The context has no effect outside the main thread, where Python does not
    allow handlers.
    """

    def __init__(self) -> None:
        self.requested = False
        self._owner = os.getpid()
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if number.name != "SIGHUP" or signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            # None: the handler was not set from Python and cannot be restored
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._owner:  # a forked data worker, which also receives Ctrl-C
            if number == signal.SIGTERM:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        if distributed.rank() == 0:
            # Written immediately, since a step or an evaluation may take minutes. It is neither logged nor
            # printed, because the handler may interrupt another write to the same stream.
            with suppress(OSError):  # the terminal may be closed
                os.write(2, b"\nstopping after this step, with a checkpoint; a second signal stops at once\n")
