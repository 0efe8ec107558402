"""Compiling Triton kernels for a GPU that is not there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# device numbers that no real machine has, so that Triton's per-device caches stay apart
_FIRST = 1000
TARGETS: dict[str, tuple[str, int | str, int]] = {
    "sm_80": ("cuda", 80, 32),
    "sm_90": ("cuda", 90, 32),
    "sm_120": ("cuda", 120, 32),
    "gfx942": ("hip", "gfx942", 64),
}


class _Driver:
    """Answers what Triton's compiler asks of a driver, for one target."""

    def __init__(self, name: str) -> None:
        self.name = name

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget(*TARGETS[self.name])

    def get_current_device(self) -> int:
        return _FIRST + list(TARGETS).index(self.name)

    def get_current_stream(self, device: int | None = None) -> int:
        return 0


@contextmanager
def target(name: str) -> Iterator[None]:
    """Inside, `kernel.warmup(...)` compiles for the target `name` of TARGETS and loads nothing."""
    from triton.runtime import driver

    before = driver._active
    driver.set_active(_Driver(name))
    try:
        yield
    finally:
        driver.set_active(before)
