"""Operands on which arithmetic goes wrong, as bit patterns, and what the reference says of them."""

from __future__ import annotations

import struct
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from ree.kernels.scalar.language import BOOL, F32, I64, OPS, U32, T
from ree.kernels.scalar.softfloat import execute
from ree.settlement.testing.evm import Contract

Bits = npt.NDArray[np.uint64]
NO_RESULT = 2**64 - 1
BATCH = 4096  # cases in a call
_PATTERNS = [
    0x00000000, 0x00000001, 0x00000002, 0x00400000, 0x007FFFFF, 0x00800000, 0x00800001, 0x00FFFFFF,
    0x01000000, 0x0C800000, 0x33800000, 0x34000000, 0x38800000, 0x3EFFFFFF, 0x3F000000, 0x3F000001,
    0x3F7FFFFF, 0x3F800000, 0x3F800001, 0x3FC00000, 0x40000000, 0x40200000, 0x4AFFFFFF, 0x4B000001,
    0x4B7FFFFF, 0x4EFFFFFF, 0x4F000000, 0x5EFFFFFF, 0x5F000000, 0x7EFFFFFF, 0x7F000000, 0x7F7FFFFF,
    0x7F800000, 0x7FC00000,
]  # fmt: skip
SPECIAL = np.array([s | x for x in _PATTERNS for s in (0, 1 << 31)], np.uint64)  # one NaN negative
# 1, 1 + ulp, 1.5, 1 + 2^-12 (its square is a tie), one less than 2
_FRACTIONS = np.array([0, 1, 0x400000, 0x000800, 0x7FFFFF], np.uint64)
INT32 = [0, 1, 2, 3, 7, 31, 100, 2**24 + 1, 2**31 - 1, 2**31, 2**32 - 1, 2**32 - 7, 2**32 - 100]
INT64 = [0, 1, 2, 3, 7, 2**24 + 1, 2**40 + 2**16 + 1, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1,
         2**64 - 7, 2**63 - 2**38, 2**63 - 2**38 - 1, 2**32, 2**31, 2**32 - 1]  # fmt: skip


def edge_values(t: T) -> Bits:
    """Edge values of a type."""
    if t is F32:
        return SPECIAL
    return np.array([0, 1] if t is BOOL else INT64 if t is I64 else INT32, np.uint64)


def combinations(types: tuple[T, ...]) -> list[Bits]:
    """Edge values in all combinations, a column an operand."""
    columns = np.array(list(product(*(edge_values(t) for t in types))), np.uint64)
    return list(columns.T)


def alignments(rng: np.random.Generator) -> list[Bits]:
    """a, b, c for a * b + c at every distance of product and c, both signs, in the middle and where the
    result overflows or is subnormal: bits lost, sticky bits, ties, carries."""
    fa, fb, fc, gap, sign = np.array(
        list(product(_FRACTIONS, _FRACTIONS, _FRACTIONS, range(-85, 86), (0, 1))), np.int64
    ).T
    ec = rng.choice([1, 2, 30, 127, 200, 253, 254], gap.size)
    total = np.clip(ec + gap + 127, 2, 508)
    ea = np.clip(total // 2 + rng.integers(-20, 21, gap.size), 1, 254)
    eb = np.clip(total - ea, 0, 254)
    return [
        (sign << 31 | ea << 23 | fa).astype(np.uint64),
        (eb << 23 | fb).astype(np.uint64),
        (ec << 23 | fc).astype(np.uint64),
    ]


def cancellations(rng: np.random.Generator, n: int) -> list[Bits]:
    """a, b and c = -(a * b) rounded, or a neighbour: what is left is the product's rounding error."""
    a, b = ((rng.integers(90, 165, n) << 23 | rng.integers(0, 2**23, n)) for _ in range(2))
    with np.errstate(all="ignore"):
        c = a.astype(np.uint32).view(np.float32) * b.astype(np.uint32).view(np.float32)
    near = c.view(np.uint32).astype(np.int64) + rng.integers(-1, 2, n)
    return [x.astype(np.uint64) for x in (a, b, near | 1 << 31)]


def halfway(rng: np.random.Generator, n: int) -> list[Bits]:
    """a, b, c whose sum of product and c has few bits, so that ties and near ties are common; many are
    subnormal."""
    small = [rng.integers(1, 2**k, n) for k in (13, 13, 24)]
    scale = rng.integers(-140, 60, n)
    parts = (scale // 2, scale - scale // 2, scale + rng.integers(-26, 27, n))
    out = []
    for m, e in zip(small, parts, strict=True):
        x = np.ldexp(m.astype(np.float64), e).astype(np.float32)
        out.append((x.view(np.uint32) ^ rng.integers(0, 2, n) << 31).astype(np.uint64))
    return out


def anything(types: tuple[T, ...], rng: np.random.Generator, n: int) -> list[Bits]:
    """Uniform bit patterns; half of the floats have exponents near each other."""
    out = []
    for t in types:
        width = 1 if t is BOOL else 64 if t is I64 else 32
        x = rng.integers(0, 2**width - 1, n, np.uint64, endpoint=True)
        if t is F32:
            near = rng.integers(110, 145, n, np.uint64) << np.uint64(23)
            x = np.where(np.arange(n) % 2 == 0, x, (x & np.uint64(0x807FFFFF)) | near)
        out.append(x)
    return out


def operations() -> list[tuple[str, T, T, tuple[T, ...]]]:
    """Every operation on registers and type of it: name, result, last operand, all operands."""
    out = []
    for name, info in OPS.items():
        if name in ("param", "const", "table"):
            continue
        for t in info.types:
            types = (BOOL, t, t) if name == "select" else (t,) * info.arity
            if name == "convert":
                results = [r for r in T if r is not t and (t, r) != (F32, U32)]
            elif name == "bitcast":
                results = list(info.types)
            else:
                results = [BOOL if info.result == "bool" else t]
            out += [(name, r, t, types) for r in results]
    return out


def record(name: str, result: T, operand: T) -> int:
    """The first two bytes of a step's record, in place; registers' numbers are zero."""
    return OPS[name].code << 56 | (16 * result.code + operand.code) << 48


def expected(name: str, result: T, operand: T, columns: list[Bits]) -> Bits:
    """Results by exact integer arithmetic; NO_RESULT for a shift out of range."""
    out = []
    for row in zip(*(c.tolist() for c in columns), strict=True):
        try:
            out.append(execute(name, operand, result, row))
        except ValueError:
            out.append(NO_RESULT)
    return np.array(out, np.uint64)


def words(head: int, columns: list[Bits]) -> npt.NDArray[Any]:
    """Cases as the tester reads them: 32 bytes each, head, a, b, c."""
    out = np.zeros((len(columns[0]), 4), ">u8")
    out[:, 0] = head
    for i, column in enumerate(columns):
        out[:, 1 + i] = column
    return out


def run_steps(contract: Contract, head: int, columns: list[Bits]) -> Bits:
    """Results of the tester's `steps` for many cases; NO_RESULT where it gives INVALID."""
    cases = words(head, columns)
    out = np.empty(len(cases), np.uint64)
    for start in range(0, len(cases), BATCH):
        part = cases[start : start + BATCH]
        arguments = struct.pack(">24xQ24xQ", 32, len(part)) + part.tobytes()
        data = contract.call_raw("steps", arguments)
        result = np.frombuffer(data, ">u8", offset=64).reshape(-1, 4)
        out[start : start + BATCH] = np.where(result[:, 0] == 0, result[:, 3], NO_RESULT)
    return out


def measure(contract: Contract, function: int, cases: npt.NDArray[Any]) -> tuple[Bits, Bits]:
    """Gas and result of the meter's function of this number for cases from `words`."""
    gas, result = np.empty(len(cases), np.uint64), np.empty(len(cases), np.uint64)
    for start in range(0, len(cases), BATCH - 1):
        part = cases[start : start + BATCH - 1]
        # one case first that does not count: it pays for memory that the meter itself uses later
        rows = np.concatenate([part[:1], part]).astype(">u8")
        arguments = struct.pack(">24xQ24xQ24xQ", function, 64, len(rows)) + rows.tobytes()
        data = np.frombuffer(contract.call_raw("measure", arguments), ">u8", offset=64)
        columns = data.reshape(-1, 4)[1:]
        gas[start : start + len(part)] = columns[:, 2]
        result[start : start + len(part)] = columns[:, 3]
    return gas, result
