"""Random numbers: Philox 4x32-10, a function of seed, step, site and element alone.

Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3 (SC 2011). Key: the 64-bit seed.
Counter: element >> 2 (two words), site, step. Word: element & 3. No state, so any element of any step
can be made again, and no pass can move it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np

from ree.kernels.constants import PHILOX_MULTIPLIERS as MULTIPLIERS
from ree.kernels.constants import PHILOX_ROUNDS as ROUNDS
from ree.kernels.constants import PHILOX_WEYL as WEYL
from ree.kernels.opdef import Attrs, Bound, Cost, Form, OpDef, Sample, bytes_moved, register
from ree.kernels.ops.pointwise import index_rule, reference
from ree.kernels.scalar.language import (
    F32,
    I64,
    U32,
    Expr,
    Function,
    const,
    convert,
    eq,
    mul_hi,
    param,
    select,
)
from ree.kernels.schema import Attr, AttrKind
from ree.kernels.types import DType, TensorType, broadcast_shapes

MAX_SITE = (1 << 32) - 1
RULE = (
    "word (element & 3) of Philox 4x32-10 with key seed and counter (element >> 2, site, step), its top "
    "24 bits times 2^-24"
)


def philox(counter: Sequence[Expr], key: Sequence[Expr]) -> list[Expr]:
    """The four words of a block; counter of four u32, key of two."""
    c, k = list(counter), list(key)
    for i in range(ROUNDS):
        if i:
            k = [a + const(w, U32) for a, w in zip(k, WEYL, strict=True)]
        m0, m1 = (const(m, U32) for m in MULTIPLIERS)
        c = [
            mul_hi(m1, c[2]) ^ c[1] ^ k[0],
            m1 * c[2],
            mul_hi(m0, c[0]) ^ c[3] ^ k[1],
            m0 * c[0],
        ]
    return c


def _halves(x: Expr) -> tuple[Expr, Expr]:
    """An i64 as its low and high words."""
    return convert(x, U32), convert(x >> 32, U32)


@lru_cache(maxsize=256)
def uniform(site: int) -> Function:
    """(element, seed, step), all i64, to a uniform number in [0, 1)."""
    element, seed, step = (param(i, I64) for i in range(3))
    low, high = _halves(element >> 2)
    words = philox([low, high, const(site, U32), _halves(step)[0]], _halves(seed))
    lane = convert(element & 3, U32)
    word = words[3]
    for i in (2, 1, 0):
        word = select(eq(lane, i), words[i], word)
    return Function("uniform", (I64, I64, I64), convert(word >> 8, F32) * const(2.0**-24, F32))


def _site(attrs: Attrs) -> int:
    site = attrs["site"]
    assert isinstance(site, int)  # by the schema
    return site


def _infer(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    if len(types) != 3 or any(t.dtype is not DType.I64 for t in types):
        raise ValueError("uniform: expected i64 element, seed and step")
    return (TensorType(DType.F32, broadcast_shapes(*(t.shape for t in types))),)


def _samples() -> Iterator[Sample]:
    element = np.array([[0, 1, 2, 3, 4], [7, 2**32 - 1, 2**34 + 1, 2**62, 5]])
    for site, seed, step in ((0, 0, 0), (3, -1, 5), (MAX_SITE, 0x0123456789ABCDEF, 2**40 + 1)):
        yield Sample(f"{site},{seed},{step}", (element, np.array(seed), np.array(step)),
                     {"site": site})  # fmt: skip
    yield Sample("many", (np.arange(1000), np.array(1), np.arange(3)[:, None]), {"site": 1})


def _cost(node: Bound) -> Cost:
    return Cost(0, bytes_moved(node))


register(
    OpDef("uniform", 330, Form.POINTWISE, RULE, _infer, _cost, _samples, "exact", reference, index_rule,
          lambda dtypes, attrs: uniform(_site(attrs)), schema={"site": Attr(AttrKind.INT, 0, MAX_SITE)})
)  # fmt: skip
