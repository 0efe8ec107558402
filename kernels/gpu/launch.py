"""GPU kernels by name: how a kernel call of a recipe becomes launches of Triton kernels.

Recipes are the same for CPU and GPU: `gemm`, `softmax`, ... with slots and parameters as the signature
of that name orders them (abi.py). On a GPU the name is looked up here. Nothing of Triton is imported
until `table()` is called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ree.kernels.abi import Value, call, signature

SCRATCH = -2  # pseudo slot: memory for the launches of one call
ERROR = -3  # pseudo slot: an i32 that a kernel sets to 1 on an index out of range
PANEL = 128  # columns of a packed panel on a GPU
# arguments that Triton makes no variants for: they say how much there is, not where it lies
COUNTS = ("rows", "blocks", "segments")


@dataclass(frozen=True)
class Ptr:
    """A pointer argument: a slot, a byte offset into it, and the element type as Triton names it
    (fp32, i8, i32, u32, i64)."""

    slot: int
    dtype: str
    offset: int = 0


@dataclass(frozen=True)
class Launch:
    """One kernel launch. `constants` are compile-time arguments by name."""

    kernel: Any
    grid: tuple[int, int, int]
    args: tuple[Ptr | int, ...]
    constants: tuple[tuple[str, Any], ...] = ()
    warps: int = 4
    stages: int = 2
    registers: tuple[int, ...] = (0,)  # limits a thread to try until nothing spills; 0 is none
    otherwise: tuple[Launch, ...] = ()  # schedules with the same bits, to try while registers spill

    def choices(self) -> Iterator[tuple[Launch, int]]:
        """Schedules and limits of registers in the order in which they are tried; the first that does
        not spill is the one that runs, and without one none does."""
        for x in (self, *self.otherwise):
            for limit in x.registers:
                yield x, limit

    @property
    def name(self) -> str:
        return str(self.kernel.__name__)

    def options(self, registers: int = 0) -> dict[str, Any]:
        """Keyword arguments of the launch. Fusion of multiplications and additions is always off."""
        limit = {"maxnreg": registers} if registers else {}
        return {**dict(self.constants), "num_warps": self.warps, "num_stages": self.stages,
                "enable_fp_fusion": False, **limit}  # fmt: skip


@dataclass
class KernelCall:
    """A call of a recipe, and the launches made for it.

    tile: the group's TileSpec or None. args: slots and parameters by name. scratch: bytes of scratch
    memory asked for.
    """

    kernel: str
    slots: Sequence[int]
    params: Sequence[int]
    tile: Any = None
    launches: list[Launch] = field(default_factory=list)
    scratch: int = 0

    def __post_init__(self) -> None:
        self.args = signature(self.kernel).read(self.slots, self.params)

    def launch(
        self,
        kernel: Any,
        grid: tuple[int, ...],
        args: Sequence[Ptr | int],
        *,
        warps: int = 4,
        stages: int = 2,
        registers: tuple[int, ...] = (0,),
        **constants: Any,
    ) -> None:
        """Add a launch, unless its grid is empty."""
        self.launch_first([launch(kernel, grid, args, warps=warps, stages=stages, registers=registers,
                                  **constants)])  # fmt: skip

    def launch_first(self, choices: Sequence[Launch]) -> None:
        """Add the first of several schedules with the same bits that does not spill."""
        first, *rest = choices
        if 0 not in first.grid:
            self.launches.append(replace(first, otherwise=tuple(rest)))

    def f32(self, slot: int) -> Ptr:
        """A slot of the call as float32; a null slot as any valid pointer, which is not read."""
        return Ptr(slot if slot >= 0 else self.slots[0], "fp32")

    def take_scratch(self, nbytes: int, dtype: str = "fp32") -> Ptr:
        """Scratch memory of this call."""
        offset = self.scratch
        self.scratch += (nbytes + 255) // 256 * 256
        return Ptr(SCRATCH, dtype, offset)


def kernel_call(kernel: str, /, **arguments: Value) -> KernelCall:
    """A call with its arguments by name."""
    return KernelCall(*call(kernel, **arguments))


def launch(
    kernel: Any,
    grid: tuple[int, ...],
    args: Sequence[Ptr | int],
    *,
    warps: int = 4,
    stages: int = 2,
    registers: tuple[int, ...] = (0,),
    **constants: Any,
) -> Launch:
    """A launch; a grid of fewer than three axes is filled with ones."""
    x, y, z = (*grid, 1, 1)[:3]
    return Launch(
        kernel, (x, y, z), tuple(args), tuple(constants.items()), warps, stages, registers
    )


Schedule = Callable[[KernelCall], None]
_schedules: dict[str, Schedule] = {}


def gpu_kernel(name: str) -> Callable[[Schedule], Schedule]:
    """Decorator: the GPU form of the kernel called `name` in recipes."""

    def add(f: Schedule) -> Schedule:
        if name in _schedules:
            raise TypeError(f"GPU kernel '{name}' is registered twice")
        _schedules[name] = f
        return f

    return add


def table() -> dict[str, Schedule]:
    """All GPU kernels by name; imports Triton."""
    from ree.kernels.gpu import (  # noqa: F401
        attention,
        contraction,
        contraction_i8,
        convolution,
        hash,
        movement,
        pointwise,
        rows,
        sampling,
        scan,
        scatter,
        sort,
    )

    return _schedules


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def power_of_two(n: int) -> int:
    """The least power of two that is at least n and 1."""
    return 1 << max(n - 1, 0).bit_length()
