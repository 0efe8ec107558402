"""Gas of the contracts' functions at the worst of many operands, without the transaction around them."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import numpy as np

from ree.compiler.instance import encode_type
from ree.kernels.scalar.language import F32, I64, T
from ree.kernels.types import DType, TensorType
from ree.settlement.compile import CONTRACTS, compile_contract
from ree.settlement.testing import cases
from ree.settlement.testing.cases import Bits
from ree.settlement.testing.evm import Contract

TESTER = "testing/fp32_tester.vy"
METER = "testing/fp32_gas.vy"
Worst = tuple[int, list[int]]  # gas, operands


@lru_cache(maxsize=1)
def numbers() -> dict[str, int]:
    """The meter's numbers of the functions it measures."""
    text = (CONTRACTS / METER).read_text()
    return {name: int(n) for n, name in re.findall(r"if what == (\d+):  # (\w+)", text)}


@lru_cache(maxsize=2)
def fp32_tester(venom: bool = False) -> Contract:
    """Deployed: `steps`."""
    return Contract(compile_contract(TESTER, venom=venom))


@lru_cache(maxsize=1)
def fp32_meter() -> Contract:
    """Deployed: `measure`. Not by Venom, which moves the reading of gas."""
    return Contract(compile_contract(METER))


def operands(name: str, rng: np.random.Generator, n: int) -> list[Bits]:
    """Columns of operands for a function of Fp32: edge values, and n random ones of each kind."""
    half = np.arange(n) % 2 == 0
    if name in ("from_f16", "from_bf16"):
        return [np.arange(1 << 16, dtype=np.uint64)]
    if name == "from_integer":
        sign, magnitude = cases.anything((F32, I64), rng, n)
        return [sign & np.uint64(1 << 31), magnitude >> rng.integers(0, 64, n, np.uint64)]
    if name == "to_integer":
        return [cases.anything((F32,), rng, n)[0], np.where(half, 32, 64).astype(np.uint64)]
    if name == "fma":
        return _joined(cases.anything((F32,) * 3, rng, n), cases.alignments(rng),
                       cases.cancellations(rng, n), cases.halfway(rng, n))  # fmt: skip
    return _joined(cases.combinations((F32, F32)), cases.anything((F32, F32), rng, n))


def _joined(*sets: list[Bits]) -> list[Bits]:
    return [np.concatenate(columns) for columns in zip(*sets, strict=True)]


def worst_of(name: str, head: int, columns: list[Bits]) -> Worst:
    """Most gas that a function of Fp32, or `step` of the record `head`, takes on these operands."""
    gas, _ = cases.measure(fp32_meter(), numbers()[name], cases.words(head, columns))
    at = int(gas.argmax())
    return int(gas[at]), [int(c[at]) for c in columns]


def worst_functions(rng: np.random.Generator, n: int) -> dict[str, Worst]:
    """Worst gas of each function of Fp32, and its operands."""
    return {f: worst_of(f, 0, operands(f, rng, n)) for f in numbers() if f != "step"}


def steps() -> dict[str, tuple[int, tuple[T, ...]]]:
    """Every operation of microcode as a step: the record's head and the operands' types."""
    out = {}
    for name, result, operand, types in cases.operations():
        to = f" to {result.text}" if name in ("convert", "bitcast") else ""
        out[f"{name} {operand.text}{to}"] = (cases.record(name, result, operand), types)
    return out


def worst_steps(rng: np.random.Generator, n: int) -> dict[str, Worst]:
    """Worst gas of a step of microcode by operation and types, and its operands."""
    out = {}
    for title, (head, types) in steps().items():
        columns = cases.anything(types, rng, n)
        if title == "fma f32":
            columns = operands("fma", rng, n)
        elif len(types) < 3:
            columns = _joined(columns, cases.combinations(types))
        out[title] = worst_of("step", head, columns)
    return out


def gas_of(kind: str, name: str, arguments: list[int]) -> int:
    """Gas of one call: a function of Fp32 by name, or ("steps") a step by its title."""
    columns = [np.array([x], np.uint64) for x in arguments]
    if kind == "steps":
        return worst_of("step", steps()[name][0], columns)[0]
    return worst_of(name, 0, columns)[0]


def trees() -> dict[str, int]:
    """Gas of what a dispute asks of Merkle and Commitments, at its largest shapes."""
    c, digest = trees_tester(), b"\xa5" * 32

    def gas(name: str, *arguments: Any) -> int:
        return int(c.call(name, *arguments)[-1])

    tensor = encode_type(TensorType(DType.F32, (2, 2, 2, 2, 2, 2, 2, 2**17)))
    reveals = {n: gas("reveal", 2**16 + n, 4, 2**12, [digest] * n) for n in range(1, 16)}
    return {
        "reveal of 16 children": gas("reveal", 2**20, 20, 0, [digest] * 16),
        "reveal at the right edge": max(reveals.values()),
        "node from one four levels below": gas("ancestor", 2**20, 8, 1365, digest, [digest] * 4),
        "leaf of 512 bytes, hashed": gas("root_from_leaf", 1, 0, b"\xa5" * 512, []),
        "record among 2^12": gas("root_from_leaf", 2**12, 1365, b"\xa5" * 240, [digest] * 12),
        "leaf of 64 bytes among 2^20": gas(
            "root_from_leaf", 2**20, 349525, b"\xa5" * 64, [digest] * 20
        ),
        "tensor hash, rank 8": gas("tensor_hash", tensor, digest),
        "element of 2^24 float32, rank 8": gas(
            "open_element", tensor, 2**24 - 1, b"\xa5" * 512, [digest] * 17
        ),
    }


@lru_cache(maxsize=2)
def trees_tester(venom: bool = False) -> Contract:
    """Deployed: the functions of Merkle and Commitments."""
    return Contract(compile_contract("testing/trees_tester.vy", venom=venom))
