"""Attributes as data: what an operator's attributes are called, of which kind they are, and how large.

A schema is closed: an attribute that it does not name, or one that is missing, is an error. The order of
its names is the order in which contracts read them.
"""

from __future__ import annotations

import enum
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from ree.kernels.numerics import CANONICAL_NAN
from ree.kernels.types import LARGEST, MAX_RANK, Dim, DType, Sym

# float attributes are Python floats that are exactly float32
AttrValue = bool | int | float | str | DType | Dim | tuple["AttrValue", ...]
Attrs = Mapping[str, AttrValue]

I64_LIMIT = 2**63


class AttrKind(enum.Enum):
    """What an attribute may hold; the value names it to people."""

    BOOL = "true or false"
    F32 = "a float32"
    DTYPE = "a dtype"
    INT = "an integer"
    DIM = "an integer or a symbol"
    NUMBER = "true, false, a number or a symbol"  # an element; the shape rule knows of which dtype
    INTS = "a tuple of integers"
    DIMS = "a tuple of integers or symbols"


@dataclass(frozen=True)
class Attr:
    """One attribute: its kind, and the least and greatest of its integers."""

    kind: AttrKind
    low: int = 0
    high: int = LARGEST

    def problem(self, v: AttrValue) -> str:
        """What is wrong with a value, or nothing."""
        if self.kind in (AttrKind.INTS, AttrKind.DIMS):
            if type(v) is not tuple:
                return self._expected(v)
            if len(v) > MAX_RANK:
                return f"expected at most {MAX_RANK} items, got {len(v)}"
            one = Attr(
                AttrKind.INT if self.kind is AttrKind.INTS else AttrKind.DIM,
                self.low,
                self.high,
            )
            return next((p for p in map(one.problem, v) if p), "")
        if isinstance(v, Sym):
            return "" if self.kind in (AttrKind.DIM, AttrKind.NUMBER) else self._expected(v)
        if type(v) is int and self.kind in (
            AttrKind.INT,
            AttrKind.DIM,
            AttrKind.NUMBER,
        ):
            low, high = self._range
            return "" if low <= v <= high else f"expected {low} to {high}, got {v!s:.40}"
        if type(v) is float and self.kind in (AttrKind.F32, AttrKind.NUMBER):
            return "" if _is_f32(v) else f"expected a float32, its NaN canonical, got {v!r}"
        kinds = {AttrKind.BOOL: bool, AttrKind.NUMBER: bool, AttrKind.DTYPE: DType}
        return "" if type(v) is kinds.get(self.kind) else self._expected(v)

    @property
    def _range(self) -> tuple[int, int]:
        return (
            (-I64_LIMIT, I64_LIMIT - 1) if self.kind is AttrKind.NUMBER else (self.low, self.high)
        )

    def _expected(self, v: AttrValue) -> str:
        return f"expected {self.kind.value}, got {v!r:.40}"

    @property
    def text(self) -> str:
        """The attribute as a line of the numeric contract."""
        low, high = self._range
        has_range = self.kind not in (AttrKind.BOOL, AttrKind.F32, AttrKind.DTYPE)
        return f"{self.kind.name} {low} {high}" if has_range else self.kind.name


def _is_f32(v: float) -> bool:
    try:
        raw = struct.pack(">f", v)
    except OverflowError:
        return False
    if math.isnan(v):
        return raw == struct.pack(">I", CANONICAL_NAN)
    return bool(struct.unpack(">f", raw)[0] == v)


Schema = Mapping[str, Attr]
AXIS = Attr(AttrKind.INT, 0, MAX_RANK - 1)
FLAG = Attr(AttrKind.BOOL)
NONE: Schema = {}
ALONG: Schema = {"dim": AXIS}
WHOLE = Attr(AttrKind.DIM, -I64_LIMIT, I64_LIMIT - 1)  # any i64; what is made of it wraps


def check_attrs(op: str, schema: Schema, attrs: Attrs) -> None:
    """ValueError, with operator and attribute, unless the attributes are those of the schema."""
    for name in attrs:
        if name not in schema:
            raise ValueError(f"{op}: unknown attribute {name!r:.40}")
    for name, attr in schema.items():
        if name not in attrs:
            raise ValueError(f"{op}: attribute {name} is missing")
        problem = attr.problem(attrs[name])
        if problem:
            raise ValueError(f"{op}: attribute {name}: {problem}")


def check_element(op: str, v: AttrValue, dtype: DType) -> None:
    """ValueError unless an attribute can be an element of this type; of halves only +0 can."""
    if dtype is DType.F32:
        ok = type(v) is float
    elif dtype is DType.BOOL:
        ok = type(v) is bool
    elif dtype in (DType.F16, DType.BF16):
        ok = type(v) in (int, float) and str(v) in ("0", "0.0")
    elif type(v) is int:
        bits = 8 * dtype.size - (dtype is not DType.U8)
        ok = (0 if dtype is DType.U8 else -(1 << bits)) <= v < 1 << bits
    else:
        ok = isinstance(v, Sym) and dtype is DType.I64
    if not ok:
        raise ValueError(f"{op}: attribute value: {v!r:.40} is not of {dtype.text}")


def encode_attrs(schema: Schema, attrs: Attrs) -> bytes:
    """Attribute values in the schema's order, 8 bytes big-endian for each: integers in two's
    complement, floats as their 32 bits, dtypes by code; a tuple as its length, then its items."""
    return b"".join(_encode(attrs[name]) for name in schema)


def _encode(v: AttrValue) -> bytes:
    if isinstance(v, tuple):
        return struct.pack(">Q", len(v)) + b"".join(map(_encode, v))
    if isinstance(v, float):
        return struct.pack(">If", 0, v)
    if isinstance(v, DType):
        return struct.pack(">Q", v.code)
    if not isinstance(v, int):
        raise ValueError(f"attribute {v!r} of a bound node is not a number")
    return struct.pack(">q", v)
