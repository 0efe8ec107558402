"""Recipes: kernel calls over buffer slots, as data.

A `Recipe` names kernels, slots and parameters and holds no pointer, so it is the same for every
process. The runtime fills in addresses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ree.compiler.ir import Ref
from ree.kernels import abi
from ree.kernels.index import contiguous_strides
from ree.kernels.tilespec import TileSpec
from ree.kernels.types import TensorType


@dataclass(frozen=True)
class Buffer:
    """Memory of one kind: "arena" (index into `Recipe.arena`), "weight", "const", "input", "state",
    "output", "packed", "digest"."""

    kind: str
    index: int


@dataclass(frozen=True)
class Slot:
    """A place kernels are given: byte `offset` into a buffer."""

    buffer: Buffer
    offset: int = 0


@dataclass(frozen=True)
class PlannedCall:
    """One kernel call, as its signature orders slots and parameters. `tile` names the tile function whose
    address is still to be put in, -1 none. `origins` says which operators it is for, and where in the
    model they come from."""

    kernel: str
    slots: tuple[int, ...]
    params: tuple[int, ...]
    tile: int = -1
    origins: tuple[str, ...] = ()


@dataclass(frozen=True)
class Packing:
    """A weight in panel layout, made once at load: [ceil(n/panel)][k][panel] of float32, or if it is of 8-bit
    integers [ceil(n/panel)][ceil(k/group)][panel] of `group` of them in 4 bytes (kernels/abi.py)."""

    source: Ref
    k: int
    n: int
    stride_k: int
    stride_n: int
    element_bytes: int = 4
    group: int = 0  # 0: not of 8-bit integers

    def bytes(self, panel: int) -> int:
        """Bytes in panels of so many columns."""
        return -(-self.n // panel) * panel * -(-self.k // max(self.group, 1)) * self.element_bytes

    def call(self, b: int, packed: int) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
        """The kernel call that makes it in slot `packed` of what lies in slot `b`."""
        where = {"b": b, "packed": packed, "k": self.k, "n": self.n, "stride_k": self.stride_k,
                 "stride_n": self.stride_n}  # fmt: skip
        if self.group:
            return abi.call("pack_i8", **where, group=self.group)
        return abi.call("pack", **where, batch=1, b_batch=0, element_bytes=self.element_bytes)


@dataclass
class Recipe:
    """Everything needed to run a bound graph on one instruction set."""

    calls: list[PlannedCall] = field(default_factory=list)
    slots: list[Slot] = field(default_factory=list)
    tiles: list[TileSpec] = field(default_factory=list)
    packings: list[Packing] = field(default_factory=list)
    arena: list[int] = field(default_factory=list)  # size of each arena buffer
    offsets: list[int] = field(default_factory=list)  # its place
    arena_bytes: int = 0
    groups: int = 0
    commit: int = 0  # calls after which states may be overwritten; 0: from the start
    in_place: frozenset[int] = frozenset()  # states whose new value is written over the old one
    digests: list[int] = field(default_factory=list)  # values hashed, in digest order
    values: dict[int, Buffer] = field(default_factory=dict)  # kept values (keep_values only)


@dataclass
class BufferPlace:
    """Where a value lies: a buffer, byte offset and strides in elements."""

    buffer: Buffer
    offset: int
    type: TensorType
    strides: tuple[int, ...]

    @property
    def contiguous(self) -> bool:
        return is_contiguous(self.type.dims, self.strides)


def is_contiguous(dims: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether strides are row-major for dims, ignoring axes of size 1."""
    want = contiguous_strides(dims)
    return 0 in dims or all(d == 1 or s == w for d, s, w in zip(dims, strides, want, strict=True))
