from collections.abc import Sequence
from typing import Any

from ree.kernels.opdef import Array

abi: str

class Pool:
    def __init__(self, threads: int) -> None: ...
    @property
    def threads(self) -> int: ...

class Plan:
    def __init__(self, isa: str) -> None: ...
    def add(self, kernel: str, slots: Sequence[int], params: Sequence[int]) -> None: ...
    def __len__(self) -> int: ...
    def run(self, pool: Pool, table: list[int], interruptible: bool = False) -> None: ...

# (DLPack's type code, bits, whether a NaN is looked for, extents, [(slot, offset in bytes)])
End = tuple[int, int, bool, Sequence[int], Sequence[tuple[int, int]]]

class Call:
    """A plan over torch tensors, for inputs of the same types and shapes in contiguous memory, while the
    variables `said` of the environment are as they are said to be, and the cores as many if `counted`. `keep`
    lives as long."""

    def __init__(
        self, plan: Plan, pool: Pool, type: type, inputs: Sequence[End], outputs: Sequence[End],
        table: Sequence[int], said: Sequence[tuple[str, str | None]],
        counted: bool, keep: object,
    ) -> None: ...  # fmt: skip
    def __call__(self, values: list[Any]) -> tuple[Any, ...] | None:
        """The outputs as tensors; None for values that it is not for."""

SCAN_ALONE: int  # elements from which has_nan is quicker with threads

def address(array: Array) -> int: ...
def has_nan(array: Array, pool: Pool | None) -> bool: ...
def isa_names() -> list[str]: ...
def panel(isa: str) -> int: ...
def byte_group(isa: str) -> int: ...
def float_mode_is_clean() -> bool: ...
def ptx_functions() -> list[tuple[str, int]]: ...
def ptx_layout() -> list[tuple[str, int]]: ...
def ptx_run(
    pool: Pool,
    code: int,
    threads: int,
    frame_bytes: int,
    shared_bytes: int,
    granule: int,
    grid: list[int],
    params: bytes,
    extents: list[tuple[int, int]],
    order: int,
    late: bool,
) -> tuple[int, int, int, int, tuple[int, int, int], int]: ...

class CleanFloatMode:
    """Round to nearest even, subnormals kept, in this thread while the context is open."""

    def __enter__(self) -> None: ...
    def __exit__(self, *exc: object) -> None: ...
