"""Ctrl-C between two steps rather than within one."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Self


class Interrupted(KeyboardInterrupt):
    """The run was interrupted and saved; the message says in one line how to go on."""


class Interrupts:
    """While entered, the first Ctrl-C only sets `requested`; a second one acts at once.

    Does nothing outside the main thread, where Python has no say over signals.
    """

    def __init__(self) -> None:
        self.requested = False
        self._owns = False

    def __enter__(self) -> Self:
        self._owns = threading.current_thread() is threading.main_thread()
        if self._owns:
            self._before = signal.signal(signal.SIGINT, self._notice)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._owns:
            signal.signal(signal.SIGINT, self._before)

    def _notice(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
