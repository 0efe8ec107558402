"""Layouts of bytes that contracts read: fields by name, each with its offset and size, without gaps.

Fields of at most 8 bytes are big-endian numbers, longer ones bytes.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

NUMBER = 8  # bytes of a field that is a number, at most
WORD = 32
MAX_SOURCES = 4  # of a node
LOCAL = 5  # kind of a source that is a local of a row program; others: ir.Kind


@dataclass(frozen=True)
class Field:
    """A field. word: which of 32 bytes it lies in; shift: bits from that word's low end."""

    name: str
    offset: int
    size: int

    @property
    def is_number(self) -> bool:
        return self.size <= NUMBER

    @property
    def word(self) -> int:
        return self.offset // WORD

    @property
    def shift(self) -> int:
        return 8 * (WORD - self.offset % WORD - self.size)


class Layout:
    """Fields one after the other, from names and sizes in bytes; those named _ and more are zeros."""

    def __init__(self, **sizes: int) -> None:
        self.fields: dict[str, Field] = {}
        self.size = 0  # bytes of all fields
        for name, size in sizes.items():
            self.fields[name] = Field(name, self.size, size)
            self.size += size

    def __iter__(self) -> Iterator[Field]:
        return iter(f for f in self.fields.values() if not f.name.startswith("_"))

    def __getitem__(self, name: str) -> Field:
        return self.fields[name]

    @property
    def sizes(self) -> dict[str, int]:
        """To make a longer layout of."""
        return {f.name: f.size for f in self.fields.values()}

    def pack(self, **values: int | bytes) -> bytes:
        """The bytes of these values; ValueError for one that does not fit or for other names."""
        if values.keys() != {f.name for f in self}:
            raise ValueError(f"expected the fields {', '.join(f.name for f in self)}")
        return b"".join(_bytes(f, values.get(f.name, 0)) for f in self.fields.values())

    def unpack(self, raw: bytes) -> dict[str, Any]:
        """Values by name; ValueError for bytes of another length."""
        if len(raw) != self.size:
            raise ValueError(f"expected {self.size} bytes, got {len(raw)}")
        parts = {f.name: raw[f.offset : f.offset + f.size] for f in self}
        return {n: int.from_bytes(x, "big") if self[n].is_number else x for n, x in parts.items()}


def _bytes(f: Field, value: int | bytes) -> bytes:
    if isinstance(value, int):
        if not 0 <= value < 1 << 8 * f.size:
            raise ValueError(f"{f.name}: {value} does not fit into {f.size} bytes")
        return value.to_bytes(f.size, "big")
    if len(value) != f.size:
        raise ValueError(f"{f.name}: expected {f.size} bytes, got {len(value)}")
    return value


# what the digest of an instance is of, behind its tag: compiler/instance.py
INSTANCE = Layout(
    numeric_id=32, node_root=32, values=8, interface_root=32,
    inputs=4, weights=4, states=4, constants=4, outputs=4,
)  # fmt: skip
SOURCE = Layout(kind=1, index=4)
TYPE = Layout(dtype=1, rank=1, dims=64)
# the leaf of a value; program: of a composite's row program
RECORD = Layout(
    opcode=2, result=1, count=1, type=TYPE.size, sources=MAX_SOURCES * SOURCE.size, _gap=6,
    rule=32, attributes=32, code=32, program=32, program_leaves=8, _end=8,
)  # fmt: skip


class RowLeaf(enum.IntEnum):
    """What a leaf of a row program is, its first byte. ELEMENT: where the element stands in the last node."""

    INPUT = 0
    CONSTANT = 1
    NODE = 2
    NUMBER = 3
    ELEMENT = 4


ROW_INPUT = Layout(leaf=1, operand=1, type=TYPE.size, rule=32)
ROW_CONSTANT = Layout(leaf=1, tensor=32)
ROW_NODE = Layout(leaf=1, record=RECORD.size)
# first: locals ahead of the nodes, of ELEMENT; digits: size and coefficient, i64 each, of eight
ROW_NUMBER = Layout(leaf=1, first=4, digits=128, offset=8)


class InterfaceLeaf(enum.IntEnum):
    """What a leaf of the interface is, its first byte."""

    INPUT = 0
    WEIGHT = 1
    CONSTANT = 2
    OUTPUT = 3
    STATE = 4


GIVEN = Layout(leaf=1, type=TYPE.size)  # an input, weight or state
RETURNED = Layout(leaf=1, source=SOURCE.size)  # an output
