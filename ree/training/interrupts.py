"""Ctrl-C and SIGTERM while a run is written: the step is finished and kept first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(KeyboardInterrupt):
    """Training was stopped by a signal, after `step`, the state of which is kept."""

    def __init__(self, number: int, step: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name} after step {step}")
        self.number, self.step = number, step


@contextmanager
def deferred() -> Iterator[list[int]]:
    """The first SIGINT or SIGTERM is put into the list, the second acts at once. Handlers that are not
    Python's and the system's own are left alone, and so are other threads than the main one."""
    got: list[int] = []
    before: dict[int, object] = {}

    def handler(number: int, frame: FrameType | None) -> None:
        got.append(number)
        restore()

    def restore() -> None:
        for number, old in before.items():
            signal.signal(number, old)  # type: ignore[arg-type]
        before.clear()

    if threading.current_thread() is threading.main_thread():
        for number, own in (
            (signal.SIGINT, signal.default_int_handler),
            (signal.SIGTERM, signal.SIG_DFL),
        ):
            if signal.getsignal(number) is own:
                before[number] = signal.signal(number, handler)
    try:
        yield got
    finally:
        restore()
