"""Times of several sides of a comparison, taken in turns in one process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

# Seconds. Idle workers of torch's OpenMP spin for some 20 ms, and take a core from the other side
# meanwhile: short turns would measure that.
TURN = 0.3
LEAST = 5  # turns of each side
Clock = Callable[[], float]


def interleaved(
    work: Mapping[str, Callable[[], Any]], seconds: float, clock: Clock = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of a call of each entry, one figure a turn, in turns of TURN for about `seconds`."""
    calls = {}
    for name, call in work.items():
        call()
        once = min(timed(call, 1, time.perf_counter) for _ in range(2))
        calls[name] = 1 + int(TURN / max(once, 1e-7))
    times: dict[str, list[float]] = {name: [] for name in work}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(next(iter(times.values()))) < LEAST:
        for name, call in work.items():
            times[name].append(timed(call, calls[name], clock))
    return times


def timed(call: Callable[[], Any], n: int, clock: Clock = time.perf_counter) -> float:
    """Seconds a call, of n."""
    begin = clock()
    for _ in range(n):
        call()
    return (clock() - begin) / n


def ratio(above: list[float], below: list[float]) -> float:
    """Median over turns of one's time by the other's of the same turn."""
    return round(statistics.median(a / b for a, b in zip(above, below, strict=True)), 3)
