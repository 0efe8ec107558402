"""Settings from the environment: REE_FORCE_ISA and REE_NUM_THREADS."""

from __future__ import annotations

import os
import threading
import weakref
from functools import cache

from ree import _core
from ree.errors import PlatformError
from ree.kernels import abi

MAX_THREADS = 1024


def isa(name: str | None = None) -> str:
    """The instruction set to run on: the one named, REE_FORCE_ISA, or the best this CPU has."""
    names = _names()
    if name is not None:
        if name not in names:
            raise PlatformError(f"isa: expected one of {', '.join(names)}, got {str(name)[:20]!r}")
        return name
    forced = os.environ.get("REE_FORCE_ISA")
    if not forced:
        return names[0]
    if forced not in names:
        raise PlatformError(f"REE_FORCE_ISA: expected one of {', '.join(names)}, got '{forced}'")
    return forced


@cache
def _names() -> tuple[str, ...]:
    return tuple(_core.isa_names())


def threads() -> int:
    """REE_NUM_THREADS, or the cores this process may use."""
    text = os.environ.get("REE_NUM_THREADS")
    if not text:
        return len(os.sched_getaffinity(0))
    if not text.isdecimal() or not 1 <= int(text) <= MAX_THREADS:
        raise PlatformError(
            f"REE_NUM_THREADS: expected a number from 1 to {MAX_THREADS}, got '{text[:20]}'"
        )
    return int(text)


def said() -> tuple[list[tuple[str, str | None]], bool]:
    """What the environment says of the settings, and whether the number of cores counts beside it."""
    told = [(name, os.environ.get(name)) for name in ("REE_FORCE_ISA", "REE_NUM_THREADS")]
    return told, not told[1][1]


class ForkLock:
    """A lock that a child of fork finds free: the thread that held it is not there."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        _locks.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def renew(self) -> None:
        self._lock = threading.Lock()


_locks: weakref.WeakSet[ForkLock] = weakref.WeakSet()


def _after_fork() -> None:
    for lock in list(_locks):
        lock.renew()


os.register_at_fork(after_in_child=_after_fork)


def _check_core() -> None:
    """PlatformError if the compiled kernels were built from other signatures than Python has."""
    built = getattr(_core, "abi", "none")
    if built != abi.version():
        raise PlatformError(
            f"the compiled kernels are of another version: expected {abi.version()}, got {built}",
            "build again: pip install -e .",
        )


_pools: dict[int, _core.Pool] = {}
_own = threading.local()
_pools_lock = ForkLock()


def pool(n: int | None = None) -> _core.Pool:
    """The pool of n threads (default: `threads()`); one per size and process, in which calls take turns. One
    thread is the caller's own, so that callers with one each run side by side."""
    n = threads() if n is None else n
    if type(n) is not int:
        raise PlatformError(f"threads: expected a whole number, got {n!r:.40}")
    if not 1 <= n <= MAX_THREADS:
        raise PlatformError(f"threads: expected 1 to {MAX_THREADS}, got {n}")
    if n == 1:
        if not hasattr(_own, "pool"):
            _check_core()
            _own.pool = _core.Pool(1)
        own: _core.Pool = _own.pool
        return own
    key = n + (os.getpid() << 16)  # threads do not survive a fork
    if key in _pools:  # a lock is for who makes one
        return _pools[key]
    with _pools_lock:
        if key not in _pools:
            _check_core()
            try:
                _pools[key] = _core.Pool(n)
            except RuntimeError as e:
                raise PlatformError(
                    f"cannot start {n} threads: {e}", "fewer: --threads or REE_NUM_THREADS"
                ) from e
        return _pools[key]
