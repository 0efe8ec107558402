"""Gas of each function of Fp32 at the worst of many operands."""

from __future__ import annotations

import re
from functools import lru_cache

import numpy as np

from ree.kernels.scalar import F32, I64, OPS
from ree.settlement.compile import CONTRACTS, compile_contract
from ree.settlement.testing import cases
from ree.settlement.testing.cases import Bits
from ree.settlement.testing.evm import Contract

TESTER = "testing/fp32_tester.vy"
METER = "testing/fp32_gas.vy"
FMA_STEP = OPS["fma"].code << 56


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
    if name in ("fma", "step"):
        sets = [cases.anything((F32,) * 3, rng, n), cases.alignments(rng),
                cases.cancellations(rng, n), cases.halfway(rng, n)]  # fmt: skip
    else:
        sets = [cases.combinations((F32, F32)), cases.anything((F32, F32), rng, n)]
    return [np.concatenate(columns) for columns in zip(*sets, strict=True)]


def worst(name: str, rng: np.random.Generator, n: int) -> tuple[int, list[int]]:
    """Most gas a function of Fp32 takes, and the operands."""
    columns = operands(name, rng, n)
    gas, _ = cases.measure(fp32_meter(), numbers()[name], cases.words(FMA_STEP, columns))
    at = int(gas.argmax())
    return int(gas[at]), [int(c[at]) for c in columns]


def gas_of(name: str, arguments: list[int]) -> int:
    """Gas of a function of Fp32 on these operands."""
    columns = [np.array([x], np.uint64) for x in arguments]
    gas, _ = cases.measure(fp32_meter(), numbers()[name], cases.words(FMA_STEP, columns))
    return int(gas[0])
