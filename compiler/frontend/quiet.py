"""One capture at a time, and quiet in its own thread alone: what others print, log and warn is heard.

torch.export keeps its modes in the process, hence the lock. A child of fork finds it free; if another thread
held it then, torch is in the middle of that thread's capture for ever, and the child cannot capture.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ree.errors import PlatformError

_lock = threading.RLock()
_torn = False  # forked while another thread was capturing


class _Thread:
    """The thread that is capturing; none once it has ended, though somebody may still hold what it muted."""

    def __init__(self) -> None:
        self._ident = threading.get_ident()

    def here(self) -> bool:
        return threading.get_ident() == self._ident

    def end(self) -> None:
        self._ident = 0

    def match(self, text: str) -> bool:
        """As the pattern of a warning filter."""
        return self.here()

    def heard(self, record: logging.LogRecord) -> bool:
        """As the filter of a log handler."""
        return record.thread != self._ident


_capturing: _Thread | None = None


def _after_fork() -> None:
    global _lock, _torn
    torch_has = sys.modules.get("torch._dynamo.convert_frame")
    for lock in (_lock, getattr(torch_has, "compile_lock", _lock)):
        if lock.acquire(blocking=False):
            lock.release()
        else:
            _torn = True
    if _torn:
        _lock = threading.RLock()
        if _capturing is not None:
            _capturing.end()


os.register_at_fork(after_in_child=_after_fork)


class _Muted(io.TextIOBase):
    """A stream that drops what one thread writes; what others write goes through."""

    def __init__(self, stream: Any, thread: _Thread) -> None:
        self.stream, self._thread = stream, thread

    def write(self, text: str) -> int:
        return len(text) if self._thread.here() else int(self.stream.write(text))

    def flush(self) -> None:
        if not self._thread.here():
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """For a whole capture; PlatformError in a process that was forked in the middle of one."""
    from torch._dynamo.convert_frame import compile_lock  # torch.compile uses the same global state

    with _lock:
        if _torn:
            raise PlatformError(
                "this process was forked while another thread was capturing a model",
                "compile before the fork, or start processes by spawn",
            )
        with compile_lock:
            yield


@contextmanager
def quiet() -> Iterator[None]:
    """Without torch's own account of a failed export: the error says it in one line. A stream that somebody
    replaced meanwhile stays replaced. Within `one_at_a_time`."""
    global _capturing
    me = _Thread()
    muted = {n: _Muted(s, me) for n in ("stdout", "stderr") if (s := getattr(sys, n)) is not None}
    handlers = [h for x in (logging.root, *logging.root.manager.loggerDict.values())
                if isinstance(x, logging.Logger) for h in x.handlers]  # fmt: skip
    last = logging.lastResort
    handlers += [last] if last is not None else []
    # not catch_warnings, which is of the process: a filter that matches in this thread alone
    ignored: Any = ("ignore", me, Warning, None, 0)
    filters = warnings.filters
    _capturing = me
    try:
        for name, stream in muted.items():
            setattr(sys, name, stream)
        for h in handlers:
            h.addFilter(me.heard)
        filters.insert(0, ignored)  # type: ignore[attr-defined]
        yield
    finally:
        me.end()
        _capturing = None
        for known in (filters, warnings.filters):
            with contextlib.suppress(ValueError):
                known.remove(ignored)  # type: ignore[attr-defined]
        for h in handlers:
            h.removeFilter(me.heard)
        for name, stream in muted.items():
            if getattr(sys, name) is stream:
                setattr(sys, name, stream.stream)
