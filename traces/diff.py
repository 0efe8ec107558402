"""Where two runs differ: the first value in program order, and the first element in it."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ree.kernels.types import DType
from ree.traces.tensor import Array, dtype_of
from ree.traces.trace import Trace, ValueInfo

# (kind, index) -> array; kind is "input", "output" or "value"
Tensors = Mapping[tuple[str, int], Array]

HEADER = ("version", "numeric_id", "program", "instance", "weights_root")
_FLOATS = {DType.F32: (8, 23), DType.F16: (5, 10), DType.BF16: (8, 7)}  # exponent, mantissa bits


@dataclass(frozen=True)
class ElementDifference:
    """The first element (C order) that differs, and how much of the tensor does."""

    index: tuple[int, ...]
    flat_index: int
    left_bits: str  # hexadecimal, most significant digit first
    right_bits: str
    left: float | int
    right: float | int
    ulps: int | None  # floats only; None when exactly one is NaN, or NaNs differ
    differing: int  # elements that differ
    count: int  # elements

    def __str__(self) -> str:
        distance = "" if self.ulps is None else f", {self.ulps} ulp apart"
        return (
            f"element {list(self.index)}: {self.left:.9g} (0x{self.left_bits}) and "
            f"{self.right:.9g} (0x{self.right_bits}){distance}; "
            f"{self.differing} of {self.count} differ"
        )


@dataclass(frozen=True)
class Difference:
    """One thing that two traces do not share.

    kind: a header field ("version", "numeric_id", "program", "instance", "weights_root"), a count
    ("inputs", "outputs", "values"), or a tensor ("input", "output", "value").
    """

    kind: str
    left: str  # hexadecimal digests; decimal counts
    right: str
    index: int = -1  # of a tensor
    name: str = ""  # of an input or output
    info: ValueInfo | None = None  # of a value
    element: ElementDifference | None = None  # when both sides carry the tensor
    also: int = 0  # further values that differ

    def __str__(self) -> str:
        what = self.kind if self.index < 0 else f"{self.kind} {self.index}"
        if self.name:
            what += f" '{self.name}'"
        if self.info is not None:
            facts = [x for x in (self.info.op, self.info.type, self.info.name,
                                 self.info.module, self.info.location) if x]  # fmt: skip
            what += f" ({', '.join(facts)})" if facts else ""
        text = f"{what}: {self.left} and {self.right}"
        if self.element is not None:
            text += f"; {self.element}"
        return text + (f"; {self.also} further values differ" if self.also else "")


def compare(
    left: Trace,
    right: Trace,
    left_tensors: Tensors | None = None,
    right_tensors: Tensors | None = None,
) -> tuple[Difference, ...]:
    """Differences in the order header, inputs, first differing value, outputs; empty if none.

    Values are compared when both traces have them and are of one instance. Traces of different
    levels are compared in what they share.
    """
    found = []
    for name in HEADER:
        a, b = getattr(left, name), getattr(right, name)
        if a != b:
            found.append(Difference(name, _text(a), _text(b)))
    tensors = (left_tensors or {}, right_tensors or {})
    found += _interface("input", left, right, tensors)
    if left.level == right.level == "ops" and left.instance == right.instance:
        found += _values(left, right, tensors)
    found += _interface("output", left, right, tensors)
    return tuple(found)


def _interface(
    kind: str, left: Trace, right: Trace, tensors: tuple[Tensors, Tensors]
) -> list[Difference]:
    a, b = (left.inputs, right.inputs) if kind == "input" else (left.outputs, right.outputs)
    if len(a) != len(b):
        return [Difference(f"{kind}s", str(len(a)), str(len(b)))]
    side = left.sidecar if left.sidecar.inputs or left.sidecar.outputs else right.sidecar
    names = side.inputs if kind == "input" else side.outputs
    return [
        Difference(
            kind, x.hex(), y.hex(), i, names[i] if i < len(names) else "",
            element=_element_of(kind, i, tensors),
        )
        for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y
    ]  # fmt: skip


def _values(left: Trace, right: Trace, tensors: tuple[Tensors, Tensors]) -> list[Difference]:
    a, b = left.values, right.values
    found = []
    if len(a) != len(b):
        found.append(Difference("values", str(len(a)), str(len(b))))
    differing = [i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y]
    if differing:
        i = differing[0]
        info = left.sidecar.value(i) or right.sidecar.value(i)
        found.append(
            Difference(
                "value", a[i].hex(), b[i].hex(), i, info=info,
                element=_element_of("value", i, tensors), also=len(differing) - 1,
            )
        )  # fmt: skip
    return found


def _element_of(
    kind: str, index: int, tensors: tuple[Tensors, Tensors]
) -> ElementDifference | None:
    a, b = (t.get((kind, index)) for t in tensors)
    return None if a is None or b is None else first_element(a, b)


def first_element(left: Array, right: Array) -> ElementDifference | None:
    """First differing element of two arrays, by bits; None if there is none, or if dtypes or shapes
    differ."""
    if left.dtype != right.dtype or left.shape != right.shape:
        return None
    dtype = dtype_of(left)
    a, b = (_bits(x, dtype) for x in (left, right))
    differing = np.flatnonzero(a != b)
    if differing.size == 0:
        return None
    flat = int(differing[0])
    x, y = int(a[flat]), int(b[flat])
    return ElementDifference(
        tuple(int(i) for i in np.unravel_index(flat, left.shape)), flat,
        f"{x:0{2 * dtype.size}x}", f"{y:0{2 * dtype.size}x}", number(x, dtype), number(y, dtype),
        ulp_distance(x, y, dtype) if dtype in _FLOATS else None, int(differing.size), int(a.size),
    )  # fmt: skip


def ulp_distance(a: int, b: int, dtype: DType = DType.F32) -> int | None:
    """Steps from one float's bits to the other's along the line of all floats.

    -0 and +0 are one step apart, the largest finite value and infinity too, so that 0 means equal
    bits. A NaN is 0 from its own bits and None from anything else.
    """
    if a == b:
        return 0
    exponent, mantissa = _FLOATS[dtype]
    sign = 1 << exponent + mantissa
    infinity = (1 << exponent) - 1 << mantissa
    line = []
    for bits in (a, b):
        magnitude = bits & (sign - 1)
        if magnitude > infinity:
            return None
        line.append(-1 - magnitude if bits & sign else magnitude)
    return abs(line[0] - line[1])


def number(bits: int, dtype: DType) -> float | int:
    """The number that a bit pattern stands for."""
    if dtype is DType.BF16:
        bits, dtype = bits << 16, DType.F32
    if dtype in _FLOATS:
        raw = bits.to_bytes(dtype.size, "big")
        return float(struct.unpack(">f" if dtype is DType.F32 else ">e", raw)[0])
    if dtype in (DType.U8, DType.BOOL):
        return bits
    return bits - (1 << 8 * dtype.size) if bits >> (8 * dtype.size - 1) else bits


def _bits(x: Array, dtype: DType) -> Array:
    flat = np.ascontiguousarray(x).reshape(-1)
    return flat.view(np.dtype(f"<u{dtype.size}"))


def _text(x: bytes | int) -> str:
    return x.hex() if isinstance(x, bytes) else str(x)
