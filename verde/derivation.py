"""Derivations: one output element as a list of single operations, each of which can be checked alone.

Entry i of a derivation is the result of operation i, as a bit pattern; its operands are earlier entries,
elements of the operator's sources, or constants. Whoever disputes an element descends to the first wrong
entry, and one operation decides. Composites have no derivation: they are opened by their row program.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ree.kernels.index import Access, Indirect
from ree.kernels.opdef import Array, Bound
from ree.kernels.ops.casts import SCALAR
from ree.kernels.scalar.language import T
from ree.kernels.scalar.microcode import Microcode, MicroStep
from ree.kernels.types import DType


class Undecidable(ValueError):
    """Something that the derivation says nothing about; the message names it."""


@dataclass(frozen=True)
class EarlierEntry:
    """The result of an earlier operation."""

    index: int


@dataclass(frozen=True)
class Bits:
    """A constant."""

    bits: int


@dataclass(frozen=True)
class ElementRead:
    """Element `flat` of source `source`; each term adds an index found in an earlier entry."""

    source: int
    flat: int
    terms: tuple[tuple[int, Indirect], ...] = ()


Operand = EarlierEntry | Bits | ElementRead


@dataclass(frozen=True)
class Copy:
    """The operand's bits."""

    operand: Operand


@dataclass(frozen=True)
class Scalar:
    """One operation of the scalar language."""

    step: MicroStep
    operands: tuple[Operand, ...]
    tables: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class FunctionCall:
    """A short scalar function, executed whole."""

    program: Microcode
    operands: tuple[Operand, ...]


@dataclass(frozen=True)
class Witness:
    """A number below `bound` that the defender chooses; a later Equal ties it down."""

    bound: int


@dataclass(frozen=True)
class Equal:
    """The first operand; the second must equal it, or the derivation is false."""

    operand: Operand
    other: Operand


Operation = Copy | Scalar | FunctionCall | Witness | Equal


class Derivation(ABC):
    """How one element of a bound operator comes about. `width`: bytes of an entry, 4 or 8; `chosen`: whether
    entry 0 is a Witness, opened with the derivation."""

    width = 8
    chosen = False

    def __init__(self, node: Bound, element: int, result: int = 0) -> None:
        self.node, self.element, self.result = node, element, result

    @property
    @abstractmethod
    def count(self) -> int:
        """Number of operations; at least 1, and the last one's result is the element."""

    @abstractmethod
    def operation(self, i: int) -> Operation:
        """Operation i, 0 <= i < count."""

    def entries(self, sources: Sequence[Array]) -> Array:
        """Every entry, honestly, as unsigned integers of `width` bytes: one operation after the other, or all
        at once with the same bits."""
        return self.packed(run_all(self, sources))

    def packed(self, entries: Sequence[int] | Array) -> Array:
        """Entries as an array of unsigned integers of `width` bytes."""
        return np.asarray(entries, f"<u{self.width}")

    def choose(self, i: int, sources: Sequence[Array]) -> int:
        """What an honest defender puts where operation i is a Witness."""
        raise Undecidable(f"{self.node.op} has no witness")

    def where(self, i: int) -> str:
        """What operation i is, for people."""
        return f"operation {i}"


def read_bits(x: Array, flat: int) -> int:
    """Bits of an element as the scalar language loads it."""
    d = DType.of(x.dtype)
    element = x.reshape(-1)[flat] if x.flags.c_contiguous else x[np.unravel_index(flat, x.shape)]
    return load_bits(element.tobytes(), d)


def load_bits(raw: bytes, d: DType) -> int:
    """Bits of an element from its stored bytes: narrow integers are widened to i32."""
    if SCALAR[d] is T.I32:
        return int.from_bytes(raw, "little", signed=d is not DType.U8) & 0xFFFFFFFF
    return int.from_bytes(raw, "little")


def loaded(x: Array) -> Array:
    """`load_bits` of every element, as u64."""
    d = DType.of(x.dtype)
    if SCALAR[d] is T.I32:
        return x.astype(np.int32).view(np.uint32).astype(np.uint64)
    return np.ascontiguousarray(x).view(f"<u{d.size}").astype(np.uint64)


def store_bits(bits: int, d: DType) -> bytes:
    """The stored bytes of an element of type d."""
    return (bits & ((1 << 8 * d.size) - 1)).to_bytes(d.size, "little")


def run_all(d: Derivation, sources: Sequence[Array]) -> list[int]:
    """Every entry, honestly."""
    entries: list[int] = []
    for i in range(d.count):
        op = d.operation(i)
        if isinstance(op, Witness):
            entries.append(d.choose(i, sources))
            continue
        entries.append(execute(op, lambda o: resolve(o, entries.__getitem__, sources)))
    return entries


def resolve(o: Operand, entry: Callable[[int], int], sources: Sequence[Array]) -> int:
    """The bits of an operand, from the sources themselves."""
    match o:
        case EarlierEntry(i):
            return entry(i)
        case Bits(b):
            return b
        case ElementRead():
            return read_bits(sources[o.source], place(o, entry))


def place(o: ElementRead, entry: Callable[[int], int]) -> int:
    """The flat index of a read; Undecidable if an index is out of range."""
    flat = o.flat
    for i, term in o.terms:
        flat += index_value(entry(i), term) * term.stride
    return flat


def index_value(bits: int, term: Indirect) -> int:
    """An i64 index as its bits, wrapped once where the rule says so."""
    x: int = struct.unpack(">q", bits.to_bytes(8, "big"))[0]
    if term.wrap and x < 0:
        x += term.bound
    if not 0 <= x < term.bound:
        raise Undecidable(f"index {x} outside [0, {term.bound})")
    return x


def execute(op: Operation, value: Callable[[Operand], int]) -> int:
    """The result of an operation; ValueError for an Equal that does not hold."""
    match op:
        case Copy(o):
            return value(o)
        case Scalar(step, operands, tables):
            return Microcode((), (), tables).execute(step, [value(o) for o in operands])
        case FunctionCall(program, operands):
            return program.run([value(o) for o in operands])[-1]
        case Equal(o, other):
            found = value(o)  # once: each evaluation may take an opening
            if found != value(other):
                raise ValueError("two entries that must be equal are not")
            return found
        case Witness():
            raise Undecidable("a witness is not computed")


def digits_of(index: int, sizes: Sequence[int]) -> list[int]:
    """Row-major digits."""
    out = []
    for size in reversed(sizes):
        out.append(index % max(size, 1))
        index //= max(size, 1)
    return out[::-1]


def flat_at(access: Access, digits: Sequence[int]) -> int | None:
    """Where an access reads, indirect terms aside; None where it is out of bounds and reads +0."""
    flat = 0
    for c in access.coords:
        x = c.offset + sum(k * d for k, d in zip(c.coeffs, digits, strict=True))
        if not 0 <= x < c.bound:
            return None
        flat += x * c.stride
    return flat
